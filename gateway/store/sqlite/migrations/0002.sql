-- What may be leased.
CREATE TABLE role (
  tenant           TEXT NOT NULL REFERENCES tenant (id),
  role             TEXT NOT NULL,
  source           TEXT NOT NULL,
  parameters       BLOB NOT NULL, -- sallyport.control.v1.SecretParameters
  max_lifetime     INTEGER NOT NULL, -- nanoseconds, as all that last
  default_lifetime INTEGER NOT NULL,
  renewable        INTEGER NOT NULL CHECK (renewable IN (0, 1)),
  quota            INTEGER NOT NULL,
  sealed_only      INTEGER NOT NULL CHECK (sealed_only IN (0, 1)),
  created          INTEGER,
  revision         INTEGER NOT NULL,
  PRIMARY KEY (tenant, role)
) STRICT, WITHOUT ROWID;

CREATE INDEX role_source ON role (source, tenant, role);

-- The ledger. A lease outlives its role and its owner, so that it refers to neither.
CREATE TABLE lease (
  id           BLOB PRIMARY KEY CHECK (length(id) = 16),
  tenant       TEXT NOT NULL,
  role         TEXT NOT NULL,
  workload     TEXT NOT NULL,
  registration TEXT NOT NULL,
  evidence     BLOB NOT NULL CHECK (length(evidence) = 32),
  source       TEXT NOT NULL,
  created      INTEGER NOT NULL, -- part of an order: the least integer stands for none
  max_expires  INTEGER,
  lifetime     INTEGER NOT NULL,
  state        INTEGER NOT NULL, -- sallyport.secrets.v1.LeaseState; 4 is gone
  revision     INTEGER NOT NULL,
  handle       TEXT NOT NULL,
  ref          TEXT NOT NULL,
  expires      INTEGER,
  renewable    INTEGER NOT NULL CHECK (renewable IN (0, 1)),
  revocable    INTEGER NOT NULL CHECK (revocable IN (0, 1)),
  version      INTEGER NOT NULL, -- its 64 bits; above the half it reads as negative
  due          INTEGER,
  failures     INTEGER NOT NULL,
  failure      TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX lease_due ON lease (due, id) WHERE due IS NOT NULL;
-- The state is in it so that counting reads nothing else.
CREATE INDEX lease_held ON lease (workload, tenant, role, created, id, state) WHERE state <> 4;
CREATE INDEX lease_created ON lease (created, id);
CREATE INDEX lease_tenant ON lease (tenant, created, id);
CREATE INDEX lease_workload ON lease (workload, created, id);
CREATE INDEX lease_evidence ON lease (evidence, created, id);
CREATE INDEX lease_state ON lease (state, created, id);

-- How many leases there are, so that asking does not read them all.
CREATE TABLE lease_count (
  state INTEGER PRIMARY KEY,
  n     INTEGER NOT NULL CHECK (n >= 0)
) STRICT;

CREATE TRIGGER lease_inserted AFTER INSERT ON lease BEGIN
  INSERT INTO lease_count VALUES (new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER lease_moved AFTER UPDATE OF state ON lease WHEN new.state <> old.state BEGIN
  UPDATE lease_count SET n = n - 1 WHERE state = old.state;
  INSERT INTO lease_count VALUES (new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER lease_deleted AFTER DELETE ON lease BEGIN
  UPDATE lease_count SET n = n - 1 WHERE state = old.state;
END;

-- How often the database was opened, by which a restored backup is told: see boot.go.
CREATE TABLE boot (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  starts   INTEGER NOT NULL,
  schema   INTEGER, -- the file's schema_version, which a copy by SQLite changes
  restored INTEGER  -- when a restored backup was last opened
) STRICT;

INSERT INTO boot (one, starts) VALUES (1, 0);
