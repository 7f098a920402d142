package policy

import (
	"fmt"

	cedar "github.com/cedar-policy/cedar-go"
)

// Action is what the caller asks for: one value for each RPC, named in Cedar like
// the RPC with a small first letter. The zero Action is none and is denied.
type Action uint8

// The actions, in the order of the protos.
const (
	ActionEncrypt Action = iota + 1
	ActionDecrypt
	ActionRewrap
	ActionBatchEncrypt
	ActionBatchDecrypt
	ActionBatchRewrap
	ActionComputeMac
	ActionVerifyMac
	ActionDeterministicEncrypt
	ActionDeterministicDecrypt

	ActionLeaseSecret
	ActionRenewLease
	ActionRevokeLease
	ActionGetLease
	ActionListLeases
	ActionWatchLease

	ActionCreateTenant
	ActionListTenants
	ActionCreateKeyring
	ActionGetKeyring
	ActionListKeyrings
	ActionRotateKeyring
	ActionSetVersionState
	ActionRegisterWorkload
	ActionListWorkloads
	ActionDisableWorkload
	ActionEnableWorkload
	ActionRevokeCertificate
	ActionListRevokedCertificates
	ActionGetPolicy
	ActionLoadPolicy

	ActionCreateSecretRole
	ActionGetSecretRole
	ActionListSecretRoles
	ActionUpdateSecretRole
	ActionDeleteSecretRole
	ActionListSources
	ActionGetSourcePolicy
	ActionInspectLease
	ActionSearchLeases
	ActionRevokeLeases

	actionEnd // one past the last
)

// Group is an action group of the schema. A policy names it with
// "action in Sallyport::Action::"plaintext"".
type Group uint8

// The groups. GroupRead is part of GroupControl.
const (
	GroupPlaintext Group = iota + 1 // the reply carries plaintext
	GroupSeal                       // data goes in; no plaintext comes out
	GroupSecret                     // brokered secrets: leased, renewed, revoked, looked at
	GroupControl                    // administers keys, workloads, policy and secrets
	GroupRead                       // control that changes nothing

	groupEnd
)

var groupNames = [groupEnd]string{
	GroupPlaintext: "plaintext", GroupSeal: "seal", GroupSecret: "secret", GroupControl: "control", GroupRead: "read",
}

// String gives the group's name in the schema.
func (g Group) String() string {
	if g == 0 || g >= groupEnd {
		return fmt.Sprintf("Group(%d)", uint8(g))
	}
	return groupNames[g]
}

// actionRow is what the package knows of an action. The table repeats the schema;
// TestSchemaAgrees compares them.
type actionRow struct {
	name     string
	group    Group
	resource Kind
}

var actionTable = [actionEnd]actionRow{
	ActionEncrypt:              {"encrypt", GroupSeal, KindKeyring},
	ActionDecrypt:              {"decrypt", GroupPlaintext, KindKeyring},
	ActionRewrap:               {"rewrap", GroupSeal, KindKeyring},
	ActionBatchEncrypt:         {"batchEncrypt", GroupSeal, KindKeyring},
	ActionBatchDecrypt:         {"batchDecrypt", GroupPlaintext, KindKeyring},
	ActionBatchRewrap:          {"batchRewrap", GroupSeal, KindKeyring},
	ActionComputeMac:           {"computeMac", GroupSeal, KindKeyring},
	ActionVerifyMac:            {"verifyMac", GroupSeal, KindKeyring},
	ActionDeterministicEncrypt: {"deterministicEncrypt", GroupSeal, KindKeyring},
	ActionDeterministicDecrypt: {"deterministicDecrypt", GroupPlaintext, KindKeyring},

	// A group of its own: what was permitted in terms of plaintext does not grow.
	ActionLeaseSecret: {"leaseSecret", GroupSecret, KindSecretRole},
	ActionRenewLease:  {"renewLease", GroupSecret, KindSecretRole},
	ActionRevokeLease: {"revokeLease", GroupSecret, KindSecretRole},
	ActionGetLease:    {"getLease", GroupSecret, KindSecretRole},
	ActionListLeases:  {"listLeases", GroupSecret, KindTenant},
	ActionWatchLease:  {"watchLease", GroupSecret, KindSecretRole},

	ActionCreateTenant:            {"createTenant", GroupControl, KindTenant},
	ActionListTenants:             {"listTenants", GroupRead, KindGateway},
	ActionCreateKeyring:           {"createKeyring", GroupControl, KindKeyring},
	ActionGetKeyring:              {"getKeyring", GroupRead, KindKeyring},
	ActionListKeyrings:            {"listKeyrings", GroupRead, KindTenant},
	ActionRotateKeyring:           {"rotateKeyring", GroupControl, KindKeyring},
	ActionSetVersionState:         {"setVersionState", GroupControl, KindKeyring},
	ActionRegisterWorkload:        {"registerWorkload", GroupControl, KindGateway},
	ActionListWorkloads:           {"listWorkloads", GroupRead, KindGateway},
	ActionDisableWorkload:         {"disableWorkload", GroupControl, KindGateway},
	ActionEnableWorkload:          {"enableWorkload", GroupControl, KindGateway},
	ActionRevokeCertificate:       {"revokeCertificate", GroupControl, KindGateway},
	ActionListRevokedCertificates: {"listRevokedCertificates", GroupRead, KindGateway},
	ActionGetPolicy:               {"getPolicy", GroupRead, KindGateway},
	ActionLoadPolicy:              {"loadPolicy", GroupControl, KindGateway},

	ActionCreateSecretRole: {"createSecretRole", GroupControl, KindSecretRole},
	ActionGetSecretRole:    {"getSecretRole", GroupRead, KindSecretRole},
	ActionListSecretRoles:  {"listSecretRoles", GroupRead, KindTenant},
	ActionUpdateSecretRole: {"updateSecretRole", GroupControl, KindSecretRole},
	ActionDeleteSecretRole: {"deleteSecretRole", GroupControl, KindSecretRole},
	ActionListSources:      {"listSources", GroupRead, KindGateway},
	ActionGetSourcePolicy:  {"getSourcePolicy", GroupRead, KindGateway},
	ActionInspectLease:     {"inspectLease", GroupRead, KindSecretRole},
	ActionSearchLeases:     {"searchLeases", GroupRead, KindGateway},
	ActionRevokeLeases:     {"revokeLeases", GroupControl, KindGateway},
}

// Actions lists every action, for comparison with the table of routes.
func Actions() []Action {
	all := make([]Action, 0, actionEnd-1)
	for a := Action(1); a < actionEnd; a++ {
		all = append(all, a)
	}
	return all
}

// ParseAction gives the action of a name such as "batchDecrypt".
func ParseAction(name string) (Action, error) {
	for a := Action(1); a < actionEnd; a++ {
		if actionTable[a].name == name {
			return a, nil
		}
	}
	return 0, fmt.Errorf("policy: unknown action %q", name)
}

// Valid reports whether a is one of the constants.
func (a Action) Valid() bool { return a > 0 && a < actionEnd }

// String gives the action's name in the schema, for example "batchDecrypt".
func (a Action) String() string {
	if !a.Valid() {
		return fmt.Sprintf("Action(%d)", uint8(a))
	}
	return actionTable[a].name
}

// Group gives the action's group, or 0 if a is not valid.
func (a Action) Group() Group {
	if !a.Valid() {
		return 0
	}
	return actionTable[a].group
}

// Resource gives the kind of resource the action is about, or 0 if a is not valid.
// What a create action is about is the tenant, keyring or secret role that it would
// make.
func (a Action) Resource() Kind {
	if !a.Valid() {
		return 0
	}
	return actionTable[a].resource
}

// DataPlane reports whether the action belongs to the data plane, which serves
// workloads only.
func (a Action) DataPlane() bool {
	g := a.Group()
	return g == GroupPlaintext || g == GroupSeal || g == GroupSecret
}

// actionEntities are the Cedar entities of the actions, indexed by Action, and
// groupEntities those of their groups.
var actionEntities, groupEntities = makeActionEntities()

func makeActionEntities() (actions [actionEnd]cedar.Entity, groups [groupEnd]cedar.Entity) {
	for g := Group(1); g < groupEnd; g++ {
		groups[g] = cedar.Entity{UID: cedar.NewEntityUID(typeAction, cedar.String(g.String()))}
	}
	groups[GroupRead].Parents = cedar.NewEntityUIDSet(groups[GroupControl].UID)
	for a := Action(1); a < actionEnd; a++ {
		actions[a] = cedar.Entity{
			UID:     cedar.NewEntityUID(typeAction, cedar.String(a.String())),
			Parents: cedar.NewEntityUIDSet(groups[a.Group()].UID),
		}
	}
	return actions, groups
}
