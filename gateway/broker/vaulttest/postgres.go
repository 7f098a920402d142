package vaulttest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	superuser = "postgres"
	database  = "postgres"
)

// Postgres is a running server with a database of its own.
type Postgres struct {
	// Host is the address, which stays the same over Restart: "127.0.0.1:15432".
	Host string
	// User and Password are of the superuser.
	User, Password string
	// DSN is what Vault's connection configuration takes as connection_url.
	DSN string

	process process
	bin     string
	dir     string
	fail    func(string, ...any)
}

// A PostgresOption chooses how a Postgres runs.
type PostgresOption func(*postgresOptions)

type postgresOptions struct{ settings []string }

// WithoutFsync lets commits return before they are on the disk, for measurements that
// are not about disks.
func WithoutFsync() PostgresOption { return WithSetting("fsync", "off") }

// WithSetting sets a parameter of postgresql.conf.
func WithSetting(name, value string) PostgresOption {
	return func(o *postgresOptions) { o.settings = append(o.settings, "-c", name+"="+value) }
}

// StartPostgres runs a PostgreSQL for the time of a test.
func StartPostgres(t testing.TB, options ...PostgresOption) *Postgres {
	t.Helper()
	p, err := LaunchPostgres(t.Context(), options...)
	if err != nil {
		t.Fatal("cannot start PostgreSQL, which .ci/servers/postgres.sh installs: ", err)
	}
	p.fail = t.Fatalf
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// LaunchPostgres runs a PostgreSQL until Stop. The context bounds only the start.
func LaunchPostgres(ctx context.Context, options ...PostgresOption) (*Postgres, error) {
	bin, err := install(ctx, "postgres.sh")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &Postgres{
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		User: superuser, Password: rand.Text(),
		bin: bin, fail: panicf,
	}
	p.DSN = "postgresql://{{username}}:{{password}}@" + p.Host + "/" + database + "?sslmode=disable"
	if err := p.launch(ctx, port, options); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (p *Postgres) launch(ctx context.Context, port int, options []PostgresOption) error {
	credential, err := unprivileged()
	if err != nil {
		return err
	}
	if err := p.initialise(ctx, credential); err != nil {
		return err
	}
	// No socket in a folder: its path would be too long, or another server's.
	args := []string{
		"-D", p.data(), "-p", strconv.Itoa(port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "max_connections=300",
	}
	var o postgresOptions
	for _, option := range options {
		option(&o)
	}
	p.process = process{
		name: "postgres", path: filepath.Join(p.bin, "postgres"),
		args: append(args, o.settings...), dir: p.dir, credential: credential,
	}
	return p.start(ctx)
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

// initialise makes a cluster below a folder of its own, which belongs to the user that
// the server runs as.
func (p *Postgres) initialise(ctx context.Context, credential *syscall.Credential) error {
	var err error
	if p.dir, err = os.MkdirTemp("", "sallyport-postgres-"); err != nil {
		return err
	}
	passwords := filepath.Join(p.dir, "password")
	if err := os.WriteFile(passwords, []byte(p.Password), 0o600); err != nil {
		return err
	}
	if credential != nil {
		for _, path := range []string{p.dir, passwords} {
			if err := os.Chown(path, int(credential.Uid), int(credential.Gid)); err != nil {
				return err
			}
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "initdb"), "-D", p.data(), "-U", p.User,
		"--pwfile", passwords, "--auth", "scram-sha-256", "--no-locale", "--encoding", "UTF8", "--no-sync")
	cmd.Dir = p.dir
	cmd.Env = []string{"PATH=" + p.bin + ":/usr/bin:/bin", "TZ=UTC", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: credential}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

// unprivileged is whom the server runs as if this process is root, as whom it refuses
// to run. Otherwise it is nil.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(account.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(account.Gid, 10, 32)
		if err := errors.Join(errUID, errGID); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody")
}

func (p *Postgres) start(ctx context.Context) error {
	return p.process.start(ctx, func(ctx context.Context) error { return p.login(ctx, p.User, p.Password) })
}

// Stop ends the server and removes its database.
func (p *Postgres) Stop() error {
	// The interrupt asks for a fast shutdown, which leaves nothing in shared memory.
	err := p.process.end(syscall.SIGINT, true)
	if p.dir != "" {
		err = errors.Join(err, os.RemoveAll(p.dir))
	}
	return err
}

// Kill ends the server and its sessions at once, as a crash would.
func (p *Postgres) Kill() error { return p.process.end(syscall.SIGKILL, true) }

// Restart starts the server again on the same port with the same data, after killing
// it if it runs.
func (p *Postgres) Restart() error {
	if err := p.Kill(); err != nil {
		return err
	}
	return p.start(context.Background())
}

// Pause stops the server and its sessions without ending them: connections are made,
// nothing answers.
func (p *Postgres) Pause() error { return p.process.pause() }

// Resume continues them after Pause.
func (p *Postgres) Resume() error { return p.process.resume() }

// Output is the end of what the server has logged.
func (p *Postgres) Output() string { return p.process.log() }

// URL is where a user finds the database.
func (p *Postgres) URL(user, password string) string { return p.url(url.UserPassword(user, password)) }

func (p *Postgres) url(user *url.Userinfo) string {
	u := url.URL{
		Scheme: "postgresql", User: user, Host: p.Host,
		Path: "/" + database, RawQuery: "sslmode=disable&connect_timeout=5",
	}
	return u.String()
}

// Exec runs statements as the superuser and returns the rows, one a line.
func (p *Postgres) Exec(sql string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return p.psql(ctx, p.User, p.Password, sql)
}

// Login tries to connect as a user.
func (p *Postgres) Login(user, password string) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return p.login(ctx, user, password)
}

// Roles lists the roles that may log in and whose name begins so. It ends the test if
// the server does not answer.
func (p *Postgres) Roles(prefix string) []string {
	roles, err := p.ListRoles(prefix)
	if err != nil {
		p.fail("roles: %v", err)
	}
	return roles
}

// ListRoles is Roles with an error.
func (p *Postgres) ListRoles(prefix string) ([]string, error) {
	out, err := p.Exec("SELECT rolname FROM pg_roles WHERE rolcanlogin AND starts_with(rolname, " + literal(prefix) + ") ORDER BY rolname")
	return strings.Fields(out), err
}

// literal quotes a string for SQL.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (p *Postgres) login(ctx context.Context, user, password string) error {
	_, err := p.psql(ctx, user, password, "SELECT 1")
	return err
}

// psql keeps the password from the list of processes.
func (p *Postgres) psql(ctx context.Context, user, password, sql string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "psql"), "--no-psqlrc", "--no-password", "--quiet",
		"--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1", "--dbname", p.url(url.User(user)), "--command", sql)
	cmd.Env = []string{"PGPASSWORD=" + password, "PATH=" + p.bin + ":/usr/bin:/bin", "LC_ALL=C"}
	cmd.Dir = p.dir
	cmd.WaitDelay = time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
