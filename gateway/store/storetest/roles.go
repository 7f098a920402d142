package storetest

import (
	"context"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sallyport/sallyport/gateway/lease"
	"github.com/sallyport/sallyport/keys"
	controlv1 "github.com/sallyport/sallyport/proto/sallyport/control/v1"
)

// RoleStore is lease.Roles in a store that also makes tenants, as keys.Shelf does.
type RoleStore interface {
	lease.Roles
	CreateTenant(ctx context.Context, t keys.Tenant, created time.Time) error
}

// Roles tests an implementation of lease.Roles.
func Roles(t *testing.T, open Opener[RoleStore]) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Opener[RoleStore])
	}{
		{"round trip", rolesRoundTrip},
		{"parameters", rolesParameters},
		{"what changes", rolesWhatChanges},
		{"errors", rolesErrorsAreExact},
		{"compare and swap", rolesCompareAndSwap},
		{"lists", rolesLists},
		{"durable", rolesDurable},
		{"ended contexts", rolesEnded},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open) })
	}
}

// withTenants opens an empty store with the tenants t and u.
func withTenants(t *testing.T, open Opener[RoleStore]) RoleStore {
	t.Helper()
	s := empty(t, open)
	must(t, s.CreateTenant(t.Context(), "t", at(0)))
	must(t, s.CreateTenant(t.Context(), "u", at(0)))
	return s
}

func roleOf(tenant keys.Tenant, name, source string) lease.Role {
	return lease.Role{
		Name: lease.RoleName{Tenant: tenant, Role: name}, Source: source, Created: at(len(name)),
		Parameters:  &controlv1.SecretParameters{Kind: &controlv1.SecretParameters_VaultKv{VaultKv: &controlv1.VaultKv{Path: name}}},
		MaxLifetime: time.Hour, DefaultLifetime: time.Minute, Quota: 10,
	}
}

// createRole stores the role and gives it as it is stored.
func createRole(t *testing.T, s lease.Roles, r lease.Role) lease.Role {
	t.Helper()
	must(t, s.CreateRole(t.Context(), r))
	r.Revision = 1
	return r
}

// sameRole compares roles, with their parameters as messages.
func sameRole(t *testing.T, got, want lease.Role) {
	t.Helper()
	if !proto.Equal(got.Parameters, want.Parameters) {
		t.Fatalf("got parameters\n%v\nwant\n%v", got.Parameters, want.Parameters)
	}
	got.Parameters, want.Parameters = nil, nil
	equal(t, got, want)
}

func sameRoles(t *testing.T, got, want []lease.Role) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d roles, want %d: %+v", len(got), len(want), got)
	}
	for i := range got {
		sameRole(t, got[i], want[i])
	}
}

func wantRole(t *testing.T, s lease.Roles, want lease.Role) {
	t.Helper()
	got, err := s.Role(t.Context(), want.Name)
	must(t, err)
	sameRole(t, got, want)
}

// filledRole has every field set, the parameters to some.
func filledRole(t *testing.T, seed int) lease.Role {
	t.Helper()
	var r lease.Role
	v := reflect.ValueOf(&r).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Type() != reflect.TypeFor[*controlv1.SecretParameters]() {
			fill(t, f, &seed)
		}
	}
	r.Parameters = allParameters()[seed%len(allParameters())]
	return r
}

func rolesRoundTrip(t *testing.T, open Opener[RoleStore]) {
	s := withTenants(t, open)
	full := filledRole(t, 1)
	full.Name.Tenant = "t"
	bare := lease.Role{Name: lease.RoleName{Tenant: "t", Role: "bare"}, Parameters: &controlv1.SecretParameters{}}
	far := roleOf("t", "far", "s")
	far.MaxLifetime, far.DefaultLifetime, far.Quota = math.MaxInt64, math.MaxInt64, math.MaxUint32
	far.Created = time.Unix(-1, -1).UTC()
	for _, r := range []lease.Role{full, bare, far} {
		wantRole(t, s, createRole(t, s, r))
	}
	elsewhere := roleOf("t", "elsewhere", "s")
	elsewhere.Created = elsewhere.Created.In(time.FixedZone("", -3600))
	elsewhere = createRole(t, s, elsewhere)
	elsewhere.Created = elsewhere.Created.UTC()
	wantRole(t, s, elsewhere)
}

// allParameters gives parameters of every kind, with every field set.
func allParameters() []*controlv1.SecretParameters {
	var all []*controlv1.SecretParameters
	kinds := new(controlv1.SecretParameters).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range kinds.Len() {
		p := new(controlv1.SecretParameters)
		fillMessage(p.ProtoReflect().Mutable(kinds.Get(i)).Message())
		all = append(all, p)
	}
	return all
}

func fillMessage(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		switch f := fields.Get(i); {
		case f.IsMap():
			key := protoreflect.ValueOfString("key").MapKey()
			if f.MapValue().Kind() == protoreflect.MessageKind {
				fillMessage(m.Mutable(f).Map().Mutable(key).Message())
			} else {
				m.Mutable(f).Map().Set(key, scalar(f.MapValue()))
			}
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			fillMessage(m.Mutable(f).List().AppendMutable().Message())
		case f.IsList():
			m.Mutable(f).List().Append(scalar(f))
			m.Mutable(f).List().Append(scalar(f))
		case f.Kind() == protoreflect.MessageKind:
			fillMessage(m.Mutable(f).Message())
		default:
			m.Set(f, scalar(f))
		}
	}
}

func scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("é" + string(f.Name()))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{0, 255})
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(f.Enum().Values().Get(f.Enum().Values().Len() - 1).Number())
	case protoreflect.Int32Kind, protoreflect.Sint32Kind:
		return protoreflect.ValueOfInt32(int32(f.Number()))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(f.Number()))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(f.Number()))
	default:
		return protoreflect.ValueOfInt64(int64(f.Number()))
	}
}

func rolesParameters(t *testing.T, open Opener[RoleStore]) {
	s := withTenants(t, open)
	for _, p := range allParameters() {
		r := roleOf("t", string(p.ProtoReflect().WhichOneof(p.ProtoReflect().Descriptor().Oneofs().ByName("kind")).Name()), "s")
		r.Parameters = proto.CloneOf(p)
		r = createRole(t, s, r)
		// The store shares no memory with its callers.
		proto.Reset(r.Parameters)
		got, err := s.Role(t.Context(), r.Name)
		must(t, err)
		proto.Reset(got.Parameters)
		r.Parameters = p
		wantRole(t, s, r)
	}
	// What a newer release wrote is kept, though not known.
	newer := roleOf("t", "newer", "s")
	newer.Parameters = new(controlv1.SecretParameters)
	newer.Parameters.ProtoReflect().SetUnknown(protoreflect.RawFields{0xc2, 0x3e, 1, 'x'}) // field 1000
	wantRole(t, s, createRole(t, s, newer))
}

func rolesWhatChanges(t *testing.T, open Opener[RoleStore]) {
	s := withTenants(t, open)
	other := createRole(t, s, roleOf("t", "other", "s"))
	stored := createRole(t, s, roleOf("t", "r", "s"))
	fixed := []string{"Source", "Created"}
	for i := range reflect.TypeFor[lease.Role]().NumField() {
		name := reflect.TypeFor[lease.Role]().Field(i).Name
		if name == "Name" || name == "Revision" {
			continue // by these the row is found
		}
		t.Run(name, func(t *testing.T) {
			changed, seed := stored, 77
			switch field := reflect.ValueOf(&changed).Elem().Field(i); {
			case name == "Parameters":
				changed.Parameters = allParameters()[0]
			case field.Kind() == reflect.Bool:
				field.SetBool(!field.Bool())
			default:
				fill(t, field, &seed)
			}
			must(t, s.UpdateRole(t.Context(), changed))
			if slices.Contains(fixed, name) {
				changed = stored
			}
			changed.Revision = stored.Revision + 1
			stored = changed
			wantRole(t, s, stored)
			wantRole(t, s, other)
		})
	}
	rows, err := s.RolesOf(t.Context(), "s")
	must(t, err)
	sameRoles(t, rows, []lease.Role{other, stored})
}

func rolesErrorsAreExact(t *testing.T, open Opener[RoleStore]) {
	s := withTenants(t, open)
	ctx := t.Context()
	want(t, s.CreateRole(ctx, roleOf("nobody", "r", "s")), lease.ErrNotFound, leaseErrors...)
	r := createRole(t, s, roleOf("t", "r", "s"))
	want(t, s.CreateRole(ctx, roleOf("t", "r", "another")), lease.ErrExists, leaseErrors...)
	for _, n := range []lease.RoleName{{}, {Tenant: "t"}, {Tenant: "t", Role: "R"}, {Tenant: "u", Role: "r"}, {Tenant: "nobody", Role: "r"}} {
		missing := r
		missing.Name = n
		got, err := s.Role(ctx, n)
		want(t, err, lease.ErrNotFound, leaseErrors...)
		equal(t, got, lease.Role{})
		want(t, s.UpdateRole(ctx, missing), lease.ErrNotFound, leaseErrors...)
		want(t, s.DeleteRole(ctx, n, 0), lease.ErrNotFound, leaseErrors...)
		want(t, s.DeleteRole(ctx, n, 1), lease.ErrNotFound, leaseErrors...)
	}
	for _, revision := range []uint64{0, 2, math.MaxUint64} {
		stale := r
		stale.Quota, stale.Revision = 99, revision
		want(t, s.UpdateRole(ctx, stale), lease.ErrConflict, leaseErrors...)
		if revision != 0 {
			want(t, s.DeleteRole(ctx, r.Name, revision), lease.ErrConflict, leaseErrors...)
		}
	}
	wantRole(t, s, r)
	must(t, s.DeleteRole(ctx, r.Name, 1))
	want(t, s.DeleteRole(ctx, r.Name, 1), lease.ErrNotFound, leaseErrors...)
	want(t, s.UpdateRole(ctx, r), lease.ErrNotFound, leaseErrors...)
	wantRole(t, s, createRole(t, s, roleOf("t", "r", "another"))) // the name is free
	must(t, s.DeleteRole(ctx, r.Name, 0))
	wantRole(t, s, createRole(t, s, roleOf("u", "r", "s")))
}

func rolesCompareAndSwap(t *testing.T, open Opener[RoleStore]) {
	s := withTenants(t, open)
	winner := race(t, lease.ErrExists, func(i int) error {
		r := roleOf("t", "r", "s")
		r.Quota = uint32(i)
		return s.CreateRole(t.Context(), r)
	})
	r := roleOf("t", "r", "s")
	r.Quota, r.Revision = uint32(winner), 1
	wantRole(t, s, r)
	for range 5 {
		winner := race(t, lease.ErrConflict, func(i int) error {
			mine := r
			mine.Quota = uint32(100 + i)
			return s.UpdateRole(t.Context(), mine)
		})
		r.Quota = uint32(100 + winner)
		r.Revision++
		wantRole(t, s, r)
	}
	race(t, lease.ErrNotFound, func(int) error { return s.DeleteRole(t.Context(), r.Name, r.Revision) })
}

func rolesLists(t *testing.T, open Opener[RoleStore]) {
	s := withTenants(t, open)
	var all []lease.Role
	names := []string{"a", "a-b", "a0", "ab", "b", "z"}
	byName := map[string]lease.Role{}
	for n, i := range []int{3, 0, 5, 1, 4, 2} {
		byName[names[i]] = createRole(t, s, roleOf("t", names[i], []string{"x", "y"}[n%2]))
	}
	for _, name := range names {
		all = append(all, byName[name])
	}
	foreign := createRole(t, s, roleOf("u", "a", "x"))
	list := func(tenant keys.Tenant, after string, limit int) []lease.Role {
		rows, err := s.Roles(t.Context(), tenant, after, limit)
		must(t, err)
		return rows
	}
	sameRoles(t, list("t", "", 0), all) // 0 means all
	sameRoles(t, list("t", "aa", 0), all[3:])
	sameRoles(t, list("u", "", 0), []lease.Role{foreign})
	sameRoles(t, list("nobody", "", 0), nil)
	for limit := 1; limit <= len(all)+1; limit++ {
		sameRoles(t, pages(t, limit, func(last *lease.Role) ([]lease.Role, error) {
			if last == nil {
				last = &lease.Role{}
			}
			return s.Roles(t.Context(), "t", last.Name.Role, limit)
		}), all)
	}
	for _, source := range []string{"x", "y", "none", ""} {
		var expected []lease.Role
		for _, r := range append(slices.Clone(all), foreign) {
			if r.Source == source {
				expected = append(expected, r)
			}
		}
		rows, err := s.RolesOf(t.Context(), source)
		must(t, err)
		sameRoles(t, rows, expected)
	}
}

func rolesDurable(t *testing.T, open Opener[RoleStore]) {
	s, reopen := use(t, open)
	must(t, s.CreateTenant(t.Context(), "t", at(0)))
	r := createRole(t, s, roleOf("t", "r", "s"))
	r.Quota = 77
	must(t, s.UpdateRole(t.Context(), r))
	r.Revision++
	createRole(t, s, roleOf("t", "deleted", "s"))
	must(t, s.DeleteRole(t.Context(), lease.RoleName{Tenant: "t", Role: "deleted"}, 1))
	s = reopen()
	rows, err := s.Roles(t.Context(), "t", "", 0)
	must(t, err)
	sameRoles(t, rows, []lease.Role{r})
	must(t, s.UpdateRole(t.Context(), r))
	want(t, s.UpdateRole(t.Context(), r), lease.ErrConflict, leaseErrors...)
}

func rolesEnded(t *testing.T, open Opener[RoleStore]) {
	s := withTenants(t, open)
	r := createRole(t, s, roleOf("t", "r", "s"))
	changed := r
	changed.Quota = 99
	ended(t, []act{
		{"CreateRole", func(ctx context.Context) error { return s.CreateRole(ctx, roleOf("t", "new", "s")) }},
		{"Role", func(ctx context.Context) error { _, err := s.Role(ctx, r.Name); return err }},
		{"Roles", func(ctx context.Context) error { _, err := s.Roles(ctx, "t", "", 0); return err }},
		{"RolesOf", func(ctx context.Context) error { _, err := s.RolesOf(ctx, "s"); return err }},
		{"UpdateRole", func(ctx context.Context) error { return s.UpdateRole(ctx, changed) }},
		{"DeleteRole", func(ctx context.Context) error { return s.DeleteRole(ctx, r.Name, 0) }},
	}, leaseErrors...)
	rows, err := s.RolesOf(t.Context(), "s")
	must(t, err)
	sameRoles(t, rows, []lease.Role{r})
}
