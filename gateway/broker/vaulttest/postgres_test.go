package vaulttest_test

import (
	"slices"
	"testing"

	"github.com/sallyport/sallyport/gateway/broker/vaulttest"
)

func TestPostgresOutlastsACrash(t *testing.T) {
	t.Parallel()
	pg := vaulttest.StartPostgres(t)
	_, err := pg.Exec(`CREATE ROLE "it's" LOGIN PASSWORD 'p'; CREATE ROLE nologin; CREATE TABLE t (x int); INSERT INTO t VALUES (1), (2)`)
	check(t, err)
	check(t, pg.Kill())
	if pg.Login(pg.User, pg.Password) == nil {
		t.Fatal("a killed server lets in")
	}
	check(t, pg.Restart())
	check(t, pg.Login("it's", "p"))
	if got, err := pg.Exec("SELECT x FROM t ORDER BY x"); err != nil || got != "1\n2" {
		t.Errorf("%q: %v", got, err)
	}
	if got := pg.Roles("it's"); !slices.Equal(got, []string{"it's"}) {
		t.Errorf("roles %q", got)
	}
	if got := pg.Roles("nologin"); len(got) != 0 {
		t.Errorf("roles %q", got)
	}
}

func TestPausedPostgresDoesNotAnswer(t *testing.T) {
	t.Parallel()
	pg := vaulttest.StartPostgres(t)
	check(t, pg.Pause())
	if pg.Login(pg.User, pg.Password) == nil {
		t.Error("a paused server lets in")
	}
	check(t, pg.Resume())
	check(t, pg.Login(pg.User, pg.Password))
	check(t, pg.Pause()) // and ends nevertheless
}
