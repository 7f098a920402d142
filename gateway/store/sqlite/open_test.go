package sqlite

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sallyport/sallyport/gateway/policy"
	"github.com/sallyport/sallyport/keys"
)

func TestCreateRefusesWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	for name, make := range map[string]func(string) error{
		"file":      func(p string) error { return os.WriteFile(p, []byte("precious"), 0o600) },
		"empty":     func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"dangling":  func(p string) error { return os.Symlink("nowhere", p) },
		"store":     func(p string) error { return closed(Create(t.Context(), p)) },
		"open store": func(p string) error {
			s, err := Create(t.Context(), p)
			t.Cleanup(func() { must(t, s.Close()) })
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			must(t, make(path))
			before, _ := os.ReadFile(path)
			wantError(t, closed(Create(t.Context(), path)), fs.ErrExist)
			after, _ := os.ReadFile(path)
			if !bytes.Equal(before, after) {
				t.Fatal("the file has changed")
			}
		})
	}
}

// A crash may leave the parts of a store that was being made.
func TestCreateAfterCrash(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store.db")
	for _, stale := range []string{".new", ".new-journal", ".lock", ".boot.new"} {
		must(t, os.WriteFile(path+stale, []byte("half of something"), 0o644))
	}
	wantError(t, closed(Open(t.Context(), path)), fs.ErrNotExist)
	must(t, closed(Create(t.Context(), path)))
	wantFiles(t, dir, "store.db", "store.db.boot", "store.db.lock")
	must(t, closed(Open(t.Context(), path)))

	// A failed Create leaves nothing but the lock.
	other := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantError(t, closed(Create(ctx, filepath.Join(other, "store.db"))), context.Canceled)
	wantFiles(t, other, "store.db.lock")
}

// Two that create at once are kept apart by the lock; somebody else's file, made in
// the meantime, is not replaced either.
func TestCreateReplacesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	must(t, os.WriteFile(path, []byte("precious"), 0o600))
	wantError(t, create(t.Context(), path), fs.ErrExist)
	content, err := os.ReadFile(path)
	must(t, err)
	if string(content) != "precious" {
		t.Fatal("the file was replaced")
	}
	wantFiles(t, filepath.Dir(path), "store.db")
}

func TestOpenMakesNothing(t *testing.T) {
	dir := t.TempDir()
	wantError(t, closed(Open(t.Context(), filepath.Join(dir, "missing.db"))), fs.ErrNotExist)
	must(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	wantError(t, closed(Open(t.Context(), filepath.Join(dir, "dangling"))), fs.ErrNotExist)
	wantFiles(t, dir, "dangling")
}

func TestOpenForeign(t *testing.T) {
	random := make([]byte, 8192)
	rand.Read(random)
	ours := filepath.Join(t.TempDir(), "ours.db")
	must(t, closed(Create(t.Context(), ours)))
	whole, err := os.ReadFile(ours)
	must(t, err)
	files := map[string][]byte{"random": random, "empty": {}, "short": whole[:99], "text": []byte(strings.Repeat("store: ", 99))}
	for name, pragma := range map[string]string{"no id": "", "another id": "PRAGMA application_id = 1", "wal": "PRAGMA journal_mode = WAL"} {
		path := filepath.Join(t.TempDir(), "foreign.db")
		execSQL(t, path, pragma+"; CREATE TABLE tenant (id TEXT)")
		files[name], err = os.ReadFile(path)
		must(t, err)
	}
	for name, content := range files {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			must(t, os.WriteFile(path, content, 0o600))
			wantError(t, closed(Open(t.Context(), path)), ErrForeign)
			after, err := os.ReadFile(path)
			must(t, err)
			if !bytes.Equal(content, after) {
				t.Fatal("the file has changed")
			}
			wantFiles(t, filepath.Dir(path), "store.db", "store.db.lock")
		})
	}
}

func TestOpenNewer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	files, err := fs.Glob(migrations, "migrations/*.sql")
	must(t, err)
	for _, version := range []int{len(files) + 1, 1000, -1} {
		_ = os.Remove(path)
		must(t, closed(Create(t.Context(), path)))
		execSQL(t, path, fmt.Sprint("PRAGMA user_version = ", version))
		wantError(t, closed(Open(t.Context(), path)), ErrNewer)
	}
}

// An older store is brought up to date, and keeps what it holds.
func TestMigrate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	execSQL(t, path, fmt.Sprintf("PRAGMA application_id = %d; CREATE TABLE marker (n INTEGER); INSERT INTO marker VALUES (7)", applicationID))
	s, err := Open(t.Context(), path) // schema 0: nothing applied yet
	must(t, err)
	defer s.Close()
	must(t, s.CreateTenant(t.Context(), "t", at(1)))

	files, err := fs.Glob(migrations, "migrations/*.sql")
	must(t, err)
	steps := fstest.MapFS{}
	for i := range files {
		steps[files[i]] = &fstest.MapFile{Data: []byte("THIS ONE HAS BEEN APPLIED;")}
	}
	steps["migrations/9001.sql"] = &fstest.MapFile{Data: []byte("ALTER TABLE tenant ADD COLUMN note TEXT; UPDATE tenant SET note = 'old';")}
	steps["migrations/9002.sql"] = &fstest.MapFile{Data: []byte("DELETE FROM tenant; NONSENSE;")}
	if err := migrate(t.Context(), s.write, steps); err == nil || !strings.Contains(err.Error(), "9002.sql") {
		t.Fatalf("got %v, want the failing step by name", err)
	}
	// The step that failed has left nothing; the one before it stays.
	var version, tenants int
	var note string
	must(t, s.write.QueryRow("PRAGMA user_version").Scan(&version))
	must(t, s.write.QueryRow("SELECT count(*), max(note) FROM tenant").Scan(&tenants, &note))
	if version != len(files)+1 || tenants != 1 || note != "old" {
		t.Fatalf("schema %d, %d tenants, note %q", version, tenants, note)
	}
	steps["migrations/9002.sql"] = &fstest.MapFile{Data: []byte("INSERT INTO marker VALUES (8);")}
	must(t, migrate(t.Context(), s.write, steps))
	must(t, migrate(t.Context(), s.write, steps)) // nothing to do
	var sum int
	must(t, s.write.QueryRow("SELECT sum(n) FROM marker").Scan(&sum))
	if sum != 15 {
		t.Fatalf("markers sum to %d, want 15", sum)
	}
}

func TestOddPaths(t *testing.T) {
	for _, name := range []string{"with space", "a?mode=memory", "a#b", "a%20b", "100%", "é", "a&_pragma=journal_mode(OFF)", "file:x", "-x", "a;b'c\"d", "new\nline"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), name)
			must(t, os.Mkdir(dir, 0o700))
			s := openOrCreate(t, dir)
			must(t, s.CreateTenant(t.Context(), "t", at(0)))
			wantFiles(t, dir, "store.db", "store.db-shm", "store.db-wal", "store.db.boot", "store.db.lock")
			wantPragmas(t, s)
			must(t, s.Close())
			wantFiles(t, dir, "store.db", "store.db.boot", "store.db.lock")
			s = openOrCreate(t, dir)
			defer s.Close()
			rows, err := s.Tenants(t.Context(), "", 9)
			must(t, err)
			if len(rows) != 1 {
				t.Fatal("the tenant is not there")
			}
		})
	}
}

// A store whose file is gone fails, and does not go on with a new and empty one.
func TestFileGone(t *testing.T) {
	s, path := newStore(t)
	must(t, s.CreateTenant(t.Context(), "t", at(0)))
	s.read.SetMaxIdleConns(0) // every read opens the file again
	must(t, os.Rename(path, path+".away"))
	_, err := s.Tenants(t.Context(), "", 9)
	wantError(t, err, keys.ErrStore)
	if s.Ping(t.Context()) == nil {
		t.Fatal("the store says that it is well")
	}
	must(t, os.Rename(path+".away", path)) // and no other has come in its place
	rows, err := s.Tenants(t.Context(), "", 9)
	must(t, err)
	if len(rows) != 1 {
		t.Fatal("the tenant is gone")
	}
}

// A relative path means the same file for as long as the store is open, also for
// connections that are made later.
func TestRelativePath(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	s, err := Create(t.Context(), "store.db")
	must(t, err)
	defer s.Close()
	t.Chdir(t.TempDir())
	must(t, s.CreateTenant(t.Context(), "t", at(0)))
	must(t, s.Ping(t.Context()))
	wantFiles(t, ".")
}

// The lock follows the file, not the name by which it is opened.
func TestOneLockThroughLinks(t *testing.T) {
	s, path := newStore(t)
	link := filepath.Join(t.TempDir(), "link.db")
	must(t, os.Symlink(path, link))
	wantError(t, closed(Open(t.Context(), link)), ErrLocked)
	wantError(t, closed(Open(t.Context(), path)), ErrLocked)
	must(t, s.CreateTenant(t.Context(), "t", at(0))) // the attempts have not disturbed it
}

func TestFileModes(t *testing.T) {
	s, path := newStore(t)
	must(t, s.CreateTenant(t.Context(), "t", at(0)))
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(path + suffix)
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", suffix, info.Mode())
		}
	}
}

// Every connection must have the settings, not only the first of a pool.
func TestPragmasOfEveryConnection(t *testing.T) {
	s, _ := newStore(t)
	wantPragmas(t, s)
	// A cancelled call costs its connection; the next one must be as good.
	ctx, cancel := context.WithCancel(t.Context())
	tx, err := s.write.BeginTx(ctx, nil)
	must(t, err)
	cancel()
	_, err = tx.ExecContext(ctx, "DELETE FROM tenant")
	wantError(t, ended(ctx, err), context.Canceled)
	_ = tx.Rollback()
	wantPragmas(t, s)
}

func wantPragmas(t *testing.T, s *Store) {
	t.Helper()
	everywhere := map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000", "trusted_schema": "0"}
	for pool, extra := range map[*sql.DB]map[string]string{s.write: {"secure_delete": "1", "query_only": "0"}, s.read: {"query_only": "1"}} {
		for range pool.Stats().MaxOpenConnections {
			c, err := pool.Conn(t.Context()) // kept, so that the next is another
			must(t, err)
			defer c.Close()
			for _, pragmas := range []map[string]string{everywhere, extra} {
				for name, value := range pragmas {
					var got string
					must(t, c.QueryRowContext(t.Context(), "PRAGMA "+name).Scan(&got))
					if got != value {
						t.Errorf("%s is %s, want %s", name, got, value)
					}
				}
			}
		}
	}
	if s.write.Stats().MaxOpenConnections != 1 {
		t.Error("there must be one writer")
	}
}

// docs/operations/store.md tells operators to back up like this, while the gateway
// runs.
func TestBackup(t *testing.T) {
	s, path := newStore(t)
	must(t, s.CreateTenant(t.Context(), "t", at(0)))
	r := testRing("t", "r", 1)
	must(t, s.CreateRing(t.Context(), r))
	backup := filepath.Join(t.TempDir(), "backup.db")
	execSQL(t, path, "VACUUM INTO '"+backup+"'")
	must(t, s.CreateRing(t.Context(), testRing("t", "later", 2)))
	restored, err := Open(t.Context(), backup)
	must(t, err)
	defer restored.Close()
	rings, err := restored.Rings(t.Context(), keys.RingQuery{Tenant: "t", Limit: 9})
	must(t, err)
	r.Revision = 1
	if !reflect.DeepEqual(rings, []keys.Ring{r}) {
		t.Fatalf("the backup has %+v", rings)
	}
}

// What a destroyed version was wrapped as must not stay in the file.
func TestDestroyedKeysAreOverwritten(t *testing.T) {
	s, path := newStore(t)
	must(t, s.CreateTenant(t.Context(), "t", at(0)))
	wrapped := bytes.Repeat([]byte("wrapped key!"), 20)
	r := testRing("t", "r", 1)
	r.Versions[0].Wrapped = wrapped
	must(t, s.CreateRing(t.Context(), r))
	checkpoint(t, s)
	holds := func() bool {
		content, err := os.ReadFile(path + "-wal")
		must(t, err)
		main, err := os.ReadFile(path)
		must(t, err)
		return bytes.Contains(append(content, main...), wrapped[:24])
	}
	if !holds() {
		t.Fatal("the key is not where the test looks for it")
	}
	r.Revision = 1
	r.Versions[0].State, r.Versions[0].Wrapped = keys.StateDestroyed, nil
	must(t, s.UpdateRing(t.Context(), r))
	checkpoint(t, s)
	if holds() {
		t.Fatal("the wrapped key is still in the file")
	}
}

func checkpoint(t *testing.T, s *Store) {
	t.Helper()
	var busy, log, done int
	must(t, s.write.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &done))
	if busy != 0 {
		t.Fatal("the checkpoint did not come through")
	}
}

// A caller who hangs up at the last moment, when all that is left is the commit, is
// no failure of the store.
func TestCancelledBeforeCommit(t *testing.T) {
	s, _ := newStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT INTO tenant (id) VALUES ('t')")
		cancel()
		for range 1000 { // until database/sql has rolled back
			if _, err := tx.Exec("SELECT 1"); errors.Is(err, sql.ErrTxDone) {
				break
			}
			time.Sleep(time.Millisecond)
		}
		return err
	})
	if wrapped := keysFamily.wrap(err); !errors.Is(wrapped, context.Canceled) || errors.Is(wrapped, keys.ErrStore) {
		t.Fatalf("got %v", wrapped)
	}
	rows, err := s.Tenants(t.Context(), "", 9)
	must(t, err)
	if len(rows) != 0 {
		t.Fatal("the cancelled write is there")
	}
}

// Outcomes that an interface has no word for are failures, never success.
func TestFamilyWithoutAWord(t *testing.T) {
	if err := archiveFamily.wrap(sql.ErrNoRows); !errors.Is(err, policy.ErrStore) {
		t.Fatalf("got %v", err)
	}
	if keysFamily.wrap(nil) != nil {
		t.Fatal("no error must stay none")
	}
}

// execSQL runs statements on a database file outside of a Store.
func execSQL(t *testing.T, path, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	_, err = db.Exec(statements)
	must(t, errors.Join(err, db.Close()))
}

func closed(s *Store, err error) error {
	if err != nil {
		return err
	}
	return s.Close()
}

func wantError(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("got error %v, want %v", got, want)
	}
}

func wantFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		t.Fatalf("files %v, want %v", got, names)
	}
}
