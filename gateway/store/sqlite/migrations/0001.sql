-- Times are nanoseconds since 1970 UTC; NULL where there is none.

CREATE TABLE tenant (
  id      TEXT PRIMARY KEY,
  created INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE ring (
  tenant          TEXT NOT NULL REFERENCES tenant (id),
  keyring         TEXT NOT NULL,
  id              BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
  purpose         INTEGER NOT NULL,
  created         INTEGER,
  rotation_period INTEGER NOT NULL,
  next_rotation   INTEGER,
  due             INTEGER, -- the earliest of next_rotation and the destructions that are scheduled
  revision        INTEGER NOT NULL,
  PRIMARY KEY (tenant, keyring)
) STRICT, WITHOUT ROWID;

CREATE INDEX ring_due ON ring (due) WHERE due IS NOT NULL;
CREATE INDEX ring_purpose ON ring (tenant, purpose, keyring);

CREATE TABLE version (
  tenant      TEXT NOT NULL,
  keyring     TEXT NOT NULL,
  number      INTEGER NOT NULL CHECK (number > 0),
  state       INTEGER NOT NULL,
  created     INTEGER,
  kek         TEXT NOT NULL,
  wrapped     BLOB NOT NULL,
  destroy_at  INTEGER,
  compromised INTEGER,
  PRIMARY KEY (tenant, keyring, number),
  FOREIGN KEY (tenant, keyring) REFERENCES ring (tenant, keyring)
) STRICT, WITHOUT ROWID;

CREATE TABLE workload (
  id         TEXT PRIMARY KEY,
  spiffe_id  TEXT NOT NULL UNIQUE,
  enabled    INTEGER NOT NULL CHECK (enabled IN (0, 1)),
  automation INTEGER NOT NULL CHECK (automation IN (0, 1)),
  created    INTEGER,
  revision   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE revocation (
  fingerprint BLOB PRIMARY KEY CHECK (length(fingerprint) = 32),
  comment     TEXT NOT NULL,
  revoked     INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE policy (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  revision INTEGER NOT NULL,
  loaded   INTEGER
) STRICT;

CREATE TABLE policy_file (
  name    TEXT PRIMARY KEY,
  content TEXT NOT NULL
) STRICT, WITHOUT ROWID;
