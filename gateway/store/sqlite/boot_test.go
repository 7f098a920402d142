package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	driver "modernc.org/sqlite"

	"github.com/sallyport/sallyport/gateway/lease"
)

// place is where a store lives, and how it is treated there.
type place struct {
	t    *testing.T
	path string
}

func newPlace(t *testing.T) place {
	p := place{t, filepath.Join(t.TempDir(), "store.db")}
	must(t, closed(Create(t.Context(), p.path)))
	return p
}

// start opens and closes the store, as a short life of the gateway does.
func (p place) start() (restored time.Time) {
	p.t.Helper()
	s, err := Open(p.t.Context(), p.path)
	must(p.t, err)
	restored = s.Restored()
	must(p.t, s.Close())
	return restored
}

// wantRestored starts the store, and again: what it is said to be it stays.
func (p place) wantRestored(want bool) {
	p.t.Helper()
	first := p.start()
	if again := p.start(); first.IsZero() == want || !again.Equal(first) {
		p.t.Fatalf("restored %v, then %v; want restored: %v", first, again, want)
	}
}

// file gives a copy of the database's file. The store is closed, so that it is whole.
func (p place) file() []byte {
	p.t.Helper()
	content, err := os.ReadFile(p.path)
	must(p.t, err)
	return content
}

func (p place) put(content []byte) {
	p.t.Helper()
	must(p.t, os.WriteFile(p.path, content, 0o600))
}

func (p place) boot(text string) {
	p.t.Helper()
	must(p.t, os.WriteFile(bootFile(p.path), []byte(text), 0o600))
}

func TestStartsAreNoRestore(t *testing.T) {
	p := newPlace(t)
	for range 5 {
		p.wantRestored(false)
	}
	text, err := os.ReadFile(bootFile(p.path))
	must(t, err)
	if string(text) != "11\n" { // one by Create
		t.Errorf("counted %q", text)
	}
	info, err := os.Stat(bootFile(p.path))
	must(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

// Every way to a restored backup.
func TestRestoredBackups(t *testing.T) {
	live := func(backup func(t *testing.T, path, to string)) func(*testing.T, place) {
		return func(t *testing.T, p place) {
			s, err := Open(t.Context(), p.path)
			must(t, err)
			to := filepath.Join(t.TempDir(), "backup")
			backup(t, p.path, to)
			must(t, s.Close())
			must(t, os.Rename(to, p.path))
		}
	}
	vacuum := live(vacuumInto)
	for name, restore := range map[string]func(*testing.T, place){
		"made while it ran":                          vacuum,
		"made while it ran, by the backup interface": live(copyByBackup),
		"made while it was stopped, before the last start": func(_ *testing.T, p place) {
			backup := p.file()
			p.start()
			p.put(backup)
		},
		"on a new machine": func(t *testing.T, p place) { must(t, os.Remove(bootFile(p.path))) },
		"said by hand":     func(_ *testing.T, p place) { p.boot("") },
		"garbage":          func(_ *testing.T, p place) { p.boot("-1\n") },
		"a store was made by mistake, and the backup took its place": func(t *testing.T, p place) {
			backup := p.file()
			must(t, os.Remove(p.path))
			must(t, closed(Create(t.Context(), p.path)))
			p.put(backup)
		},
		"an older one, and then a newer one": func(_ *testing.T, p place) {
			old := p.file()
			p.start()
			p.start()
			newer := p.file()
			p.start()
			p.put(old)
			p.start()
			p.put(newer)
		},
		"of the schema that did not count starts": func(t *testing.T, p place) { p.put(schema1(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.start()
			p.t = t
			restore(t, p)
			begin := time.Now()
			p.wantRestored(true)
			first := p.start()
			if first.Before(begin.Add(-time.Second)) || first.After(time.Now()) {
				t.Errorf("restored at %v, and it is %v", first, begin)
			}
			// Again, later.
			vacuum(t, p)
			if second := p.start(); !second.After(first) {
				t.Errorf("restored at %v, then at %v", first, second)
			}
			p.wantRestored(true)
		})
	}
}

// vacuumInto is the backup that docs/operations/store.md advises.
func vacuumInto(t *testing.T, path, to string) {
	t.Helper()
	execSQL(t, path, "VACUUM INTO '"+to+"'")
}

// copyByBackup is what ".backup" of the sqlite3 command does.
func copyByBackup(t *testing.T, path, to string) {
	t.Helper()
	db, err := connect(path, options)
	must(t, err)
	defer db.Close()
	conn, err := db.Conn(t.Context())
	must(t, err)
	defer conn.Close()
	must(t, conn.Raw(func(c any) error {
		b, err := c.(interface {
			NewBackup(dst string) (*driver.Backup, error)
		}).NewBackup(to)
		if err != nil {
			return err
		}
		_, err = b.Step(-1)
		return errors.Join(err, b.Finish())
	}))
}

// schema1 gives a store as the release before leases made it.
func schema1(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "old.db")
	text, err := fs.ReadFile(migrations, "migrations/0001.sql")
	must(t, err)
	execSQL(t, path, fmt.Sprintf("PRAGMA application_id = %d; %s; PRAGMA user_version = 1; INSERT INTO tenant VALUES ('t', 7)", applicationID, text))
	content, err := os.ReadFile(path)
	must(t, err)
	return content
}

// What is no restore, though it may look like one.
func TestNotRestored(t *testing.T) {
	for name, act := range map[string]func(*testing.T, place){
		"put back as it was": func(_ *testing.T, p place) { p.put(p.file()) },
		"an upgrade": func(t *testing.T, p place) {
			must(t, os.Remove(bootFile(p.path)))
			p.put(schema1(t))
		},
		"moved with its file": func(t *testing.T, p place) {
			must(t, os.Rename(p.path, p.path+"2"))
			must(t, os.Rename(bootFile(p.path), bootFile(p.path+"2")))
			if moved := (place{t, p.path + "2"}); !moved.start().IsZero() {
				t.Error("it looks restored where it is now")
			}
			must(t, os.Rename(p.path+"2", p.path))
			must(t, os.Rename(bootFile(p.path+"2"), bootFile(p.path)))
		},
		"made anew": func(t *testing.T, p place) {
			must(t, os.Remove(p.path))
			must(t, closed(Create(t.Context(), p.path)))
		},
		"a file that is behind": func(_ *testing.T, p place) { p.boot("1\n") },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.start()
			p.t = t
			act(t, p)
			p.wantRestored(false)
		})
	}
}

// A start that ends between any two of its steps is no restore. The state that each
// step leaves is made by hand.
func TestInterruptedStart(t *testing.T) {
	starts := func(t *testing.T, p place, n int) {
		execSQL(t, p.path, fmt.Sprint("UPDATE boot SET starts = ", n))
	}
	for name, interrupt := range map[string]func(*testing.T, place){
		"made, never opened": func(t *testing.T, p place) {
			starts(t, p, 0)
			execSQL(t, p.path, "UPDATE boot SET schema = NULL")
			must(t, os.Remove(bootFile(p.path)))
		},
		"the file is begun": func(t *testing.T, p place) {
			starts(t, p, 0)
			must(t, os.Remove(bootFile(p.path)))
			must(t, os.WriteFile(bootFile(p.path)+".new", []byte("1"), 0o600))
		},
		"the file is there, and nothing is counted": func(t *testing.T, p place) { starts(t, p, 0); p.boot("0\n") },
		"the first start is counted":                func(t *testing.T, p place) { starts(t, p, 1); p.boot("0\n") },
		"a later start is counted":                  func(t *testing.T, p place) { starts(t, p, 8); p.boot("7\n") },
		"and again":                                 func(t *testing.T, p place) { starts(t, p, 9); p.boot("7\n") },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.t = t
			interrupt(t, p)
			p.wantRestored(false)
		})
	}
}

// The same, with the real code failing where it writes the file.
func TestStartThatCannotWriteItsFile(t *testing.T) {
	for name, before := range map[string]func(place){
		"first": func(p place) {
			execSQL(t, p.path, "UPDATE boot SET starts = 0, schema = NULL")
			must(t, os.Remove(bootFile(p.path)))
		},
		"later": func(place) {},
		"restored": func(p place) {
			backup := p.file()
			p.start()
			p.put(backup)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			before(p)
			obstacle := bootFile(p.path) + ".new"
			must(t, os.Mkdir(obstacle, 0o700))
			for range 3 {
				if err := closed(Open(t.Context(), p.path)); err == nil {
					t.Fatal("opened")
				}
			}
			must(t, os.Remove(obstacle))
			p.wantRestored(name == "restored")
		})
	}
}

// A migration changes the schema, and a start that ends in the middle of them is no
// restore. A backup that is restored and brought up to date at once is one, also if
// the first start with it ends there.
func TestStartThatEndsBetweenMigrations(t *testing.T) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	must(t, err)
	steps := fstest.MapFS{
		"migrations/9001.sql": {Data: []byte("ALTER TABLE tenant ADD COLUMN note TEXT")},
		"migrations/9002.sql": {Data: []byte("NONSENSE")},
	}
	for _, f := range files {
		steps[f] = &fstest.MapFile{}
	}
	for _, restored := range []bool{false, true} {
		p := newPlace(t)
		if restored {
			backup := filepath.Join(t.TempDir(), "backup")
			vacuumInto(t, p.path, backup)
			must(t, os.Rename(backup, p.path))
		}
		db, err := connect(p.path, writerOptions)
		must(t, err)
		defer db.Close()
		s := &Store{write: db}
		broken := maps.Clone(steps)
		if err := s.begin(t.Context(), p.path, broken); err == nil {
			t.Fatal("began")
		}
		broken["migrations/9002.sql"] = &fstest.MapFile{Data: []byte("ALTER TABLE tenant ADD COLUMN other TEXT")}
		for range 2 {
			must(t, s.begin(t.Context(), p.path, broken))
			if s.Restored().IsZero() == restored {
				t.Errorf("restored at %v, want restored: %v", s.Restored(), restored)
			}
		}
	}
}

// Whatever the clock says, the restore is after everything that the backup holds.
func TestRestoredIsAfterEveryLease(t *testing.T) {
	p := newPlace(t)
	s, err := Open(t.Context(), p.path)
	must(t, err)
	future := time.Now().Add(1000 * time.Hour)
	for n, created := range []time.Time{time.Now(), future, {}} {
		l := testLease(n)
		l.Created = created
		must(t, s.Reserve(t.Context(), l, 9))
	}
	must(t, s.Close())
	must(t, os.Remove(bootFile(p.path)))
	if restored := p.start(); !restored.After(future) {
		t.Errorf("restored at %v, with a lease of %v", restored, future)
	}
	// An older release's refusal comes first, and touches nothing.
	must(t, os.Remove(bootFile(p.path)))
	execSQL(t, p.path, "PRAGMA user_version = 99; UPDATE boot SET restored = 5")
	wantError(t, closed(Open(t.Context(), p.path)), ErrNewer)
	var restored int64
	db, err := connect(p.path, options)
	must(t, err)
	must(t, db.QueryRow("SELECT restored FROM boot").Scan(&restored))
	must(t, db.Close())
	if _, err := os.Stat(bootFile(p.path)); err == nil || restored != 5 {
		t.Errorf("a newer store was changed: %v, %v", restored, err)
	}
}

// The row that a backup calls reserved is active in the life that the restore ends:
// what the gateway must know to leave it alone.
func TestReservedRowOfABackup(t *testing.T) {
	p := newPlace(t)
	s, err := Open(t.Context(), p.path)
	must(t, err)
	l := testLease(1)
	l.Created = time.Now()
	must(t, s.Reserve(t.Context(), l, 9))
	backup := filepath.Join(t.TempDir(), "backup")
	vacuumInto(t, p.path, backup)
	l.State, l.Revision = lease.StateActive, 1
	must(t, s.Update(t.Context(), l))
	must(t, s.Close())
	must(t, os.Rename(backup, p.path))

	s, err = Open(t.Context(), p.path)
	must(t, err)
	defer s.Close()
	got, err := s.Lease(t.Context(), l.Name)
	must(t, err)
	if got.State != lease.StateReserved || !got.Created.Before(s.Restored()) {
		t.Errorf("%v of %v, restored %v", got.State, got.Created, s.Restored())
	}
}

// Kills while the store is opened, again and again.
func TestKillWhileStarting(t *testing.T) {
	p := newPlace(t)
	deadline := time.Now().Add(5 * time.Second)
	if testing.Short() {
		deadline = time.Now().Add(time.Second)
	}
	seen := map[string]int{}
	for time.Now().Before(deadline) {
		cmd, out := child(t, "start", p.path)
		said, err := out.ReadString('\n')
		must(t, err)
		kill := time.AfterFunc(time.Duration(time.Now().UnixNano()%int64(30*time.Millisecond)), func() { _ = cmd.Process.Kill() })
		said += readAll(out)
		kill.Stop()
		_ = cmd.Wait()
		if strings.Contains(said, "error") {
			t.Fatal(said)
		}
		text, err := os.ReadFile(bootFile(p.path))
		must(t, err)
		var starts int
		db, err := connect(p.path, options)
		must(t, err)
		must(t, db.QueryRow("SELECT starts FROM boot").Scan(&starts))
		must(t, db.Close())
		seen[map[bool]string{true: "both written", false: "the database only"}[fmt.Sprintln(starts) == string(text)]]++
		p.wantRestored(false)
	}
	t.Log(seen)
}
