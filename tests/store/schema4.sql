PRAGMA application_id = 1853122148;
PRAGMA user_version = 4;
BEGIN TRANSACTION;
CREATE TABLE approvals (
    rowid INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, run_id TEXT NOT NULL, approval_id TEXT NOT NULL, version INTEGER NOT NULL,
    round INTEGER NOT NULL, status TEXT NOT NULL, plan_hash TEXT NOT NULL, required_grants TEXT NOT NULL,
    required_approvals INTEGER NOT NULL, requested_by TEXT NOT NULL, client TEXT NOT NULL,
    requested_at INTEGER NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER, callback_url TEXT,
    sealed_token TEXT, correlation_id TEXT NOT NULL, request TEXT NOT NULL, decisions TEXT NOT NULL,
    ended_at INTEGER, ended_by TEXT, resume TEXT NOT NULL, resume_delivery TEXT, applied TEXT NOT NULL,
    effects TEXT NOT NULL
);
INSERT INTO "approvals" VALUES(1,'acme','run-0','deploy',1,1,'pending','sha256:00','["Packs.Approve"]',1,'ci@acme.example','task-runner',1799999999000000,1800000000000000,1800003600000000,'https://runner.acme.example/resume','sealed','corr-1','{}','[]',NULL,NULL,'none',NULL,'[]','[]');
INSERT INTO "approvals" VALUES(2,'acme','run-1','deploy',1,1,'pending','sha256:00','["Packs.Approve"]',1,'ci@acme.example','task-runner',1799999999000000,1800000000000000,1800003600000000,'https://runner.acme.example/resume','sealed','corr-1','{}','[]',NULL,NULL,'none',NULL,'[]','[]');
CREATE TABLE audit (
    rowid INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL, actor TEXT NOT NULL,
    correlation_id TEXT NOT NULL, run_id TEXT, approval_id TEXT, data TEXT NOT NULL
);
INSERT INTO "audit" VALUES(1,'acme','4e1195df020de59e0d65a33a4279f1183e7ae4e5d980e309f8b55adff2e61c3e','pack.approval.requested',1800000000000000,'ci@acme.example','corr-1','run-1','deploy','{"channel":"slack","tries":2}');
INSERT INTO "audit" VALUES(2,'acme','f55ff16f66f43360266b95db6f8fec01d76031054306ae4a4b380598f6cfd114','pack.approval.requested',1800000000000000,'ci@acme.example','corr-1','run-1','deploy','{"channel":"slack","tries":2}');
INSERT INTO "audit" VALUES(3,'acme','a1','pack.approval.requested',1800000000000000,'ci@acme.example','corr-1','run-1','deploy','{"channel":"slack","tries":2}');
INSERT INTO "audit" VALUES(4,'globex','4e1195df020de59e0d65a33a4279f1183e7ae4e5d980e309f8b55adff2e61c3e','pack.approval.requested',1800000000000000,'ci@acme.example','corr-1','run-1','deploy','{"channel":"slack","tries":2}');
CREATE TABLE audit_keys (hash INTEGER NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (hash, row)) WITHOUT ROWID;
INSERT INTO "audit_keys" VALUES(161,3);
INSERT INTO "audit_keys" VALUES(6154533982484,2);
INSERT INTO "audit_keys" VALUES(99917899373630,1);
INSERT INTO "audit_keys" VALUES(99917899373630,4);
CREATE TABLE deliveries (
    rowid INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, id TEXT NOT NULL, event_key TEXT NOT NULL, kind TEXT NOT NULL, action TEXT NOT NULL,
    rule TEXT NOT NULL, channel TEXT NOT NULL, channel_type TEXT NOT NULL, lane TEXT NOT NULL, recipient TEXT,
    sealed INTEGER NOT NULL, correlation_id TEXT NOT NULL, created_at INTEGER NOT NULL,
    next_attempt_at INTEGER NOT NULL, deadline INTEGER NOT NULL, run_id TEXT, approval_id TEXT,
    seq INTEGER NOT NULL, state TEXT NOT NULL, tries INTEGER NOT NULL, attempts TEXT NOT NULL,
    ended_at INTEGER, reason TEXT, lease_owner TEXT, lease_until INTEGER NOT NULL,
    fencing_token INTEGER NOT NULL, folded_into TEXT, window TEXT, window_start INTEGER NOT NULL, budget TEXT,
    due_at INTEGER,              -- when an open delivery is due; NULL once it has ended, or while it is held
    life INTEGER NOT NULL        -- the life of the store that gave the lease; 0 for none
);
INSERT INTO "deliveries" VALUES(1,'acme','0ad52e338662c923b15fd45a73c6e97336efccf28a7aef9449443cc6dd7415fb','5c88e7a226e11ad1204cb8d30cd5d6ff6cba69bc32da73134928e17c90c54086','pack.approval','requested','approvals','slack','slack','slack',NULL,0,'corr-1',1800000000000000,1800000000000000,1800086400000000,'run-0','deploy',1,'sent',1,'[{"at":1800000000000000,"duration_ms":8.25,"outcome":"sent","reason":null,"status":200,"detail":"","excerpt":""}]',1800000000000000,NULL,NULL,0,1,NULL,NULL,0,NULL,NULL,0);
INSERT INTO "deliveries" VALUES(2,'acme','8b53639f152c8fc6ef30802fde462ba0be9cf085f7580dc69efd72e002abbb35','8b5cc4df7eec7d32a7814eca4af047ae33b2d52342667715682e19c25b0b9faa','pack.approval','requested','approvals','slack','slack','slack',NULL,0,'corr-1',1800000000000000,1800000060000000,1800086400000000,'run-1','deploy',1,'pending',1,'[{"at":1800000000000000,"duration_ms":12.5,"outcome":"transient","reason":"server_error","status":503,"detail":"answered 503","excerpt":"busy"}]',NULL,'server_error',NULL,0,1,NULL,NULL,0,NULL,1800000060000000,0);
INSERT INTO "deliveries" VALUES(3,'acme','e788103ee15318fcd2af9b73b4ebbb33a903b020de7b307d71f5fed0f433e548','ac0f09c0f8bf5e7a4b063d863255f16d8ce9abe600e288d934cf313bcbff63eb','pack.approval','requested','approvals','slack','slack','slack',NULL,0,'corr-1',1800000000000000,1800000000000000,1800086400000000,'run-2','deploy',1,'pending',0,'[]',NULL,NULL,'node-a',1800000060000000,1,NULL,NULL,0,NULL,1800000000000000,1);
INSERT INTO "deliveries" VALUES(4,'acme','f451a61749c611ba0fa0e16c61831db44f38c611dff25879cf271a24c81a88b6','cef7fc13a38180936ffa2635489088778e059f07a5d1beda53f1719d35577631','pack.approval','requested','approvals','slack','slack','slack',NULL,0,'corr-1',1800000000000000,1800000000000000,1800086400000000,'run-3','deploy',1,'pending',0,'[]',NULL,NULL,'node-a',1800000060000000,1,NULL,NULL,0,NULL,1800000000000000,1);
INSERT INTO "deliveries" VALUES(5,'acme','d1','e1','pack.approval','requested','approvals','slack','slack','slack',NULL,0,'corr-1',1800000000000000,1800000000000000,1800086400000000,'run-1','deploy',1,'pending',0,'[]',NULL,NULL,'node-a',1800000060000000,1,NULL,NULL,0,NULL,1800000000000000,1);
CREATE TABLE deliveries_keys (hash INTEGER NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (hash, row)) WITHOUT ROWID;
INSERT INTO "deliveries_keys" VALUES(209,5);
INSERT INTO "deliveries_keys" VALUES(28745278326966,4);
INSERT INTO "deliveries_keys" VALUES(66824816563707,1);
INSERT INTO "deliveries_keys" VALUES(126306443049781,2);
CREATE TABLE events (
    rowid INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, key TEXT NOT NULL, event_id TEXT NOT NULL, kind TEXT NOT NULL, action TEXT NOT NULL,
    occurred_at INTEGER NOT NULL, received_at INTEGER NOT NULL, body TEXT NOT NULL, content_id TEXT NOT NULL,
    client TEXT NOT NULL, correlation_id TEXT NOT NULL, run_id TEXT, approval_id TEXT, outcome TEXT NOT NULL,
    notify INTEGER NOT NULL, version INTEGER NOT NULL, round INTEGER NOT NULL
);
INSERT INTO "events" VALUES(1,'acme','5c88e7a226e11ad1204cb8d30cd5d6ff6cba69bc32da73134928e17c90c54086','sender-5c88e7a226e11ad1204cb8d30cd5d6ff6cba69bc32da73134928e17c90c54086','pack.approval','requested',1799999999000000,1800000000000000,'{"kind":"pack.approval","title":"Grüezi"}','k1:00ff','task-runner','corr-5c88e7a226e11ad1204cb8d30cd5d6ff6cba69bc32da73134928e17c90c54086','run-0','deploy','opened',1,1,1);
INSERT INTO "events" VALUES(2,'acme','8b5cc4df7eec7d32a7814eca4af047ae33b2d52342667715682e19c25b0b9faa','sender-8b5cc4df7eec7d32a7814eca4af047ae33b2d52342667715682e19c25b0b9faa','pack.approval','requested',1799999999000000,1800000000000000,'{"kind":"pack.approval","title":"Grüezi"}','k1:00ff','task-runner','corr-8b5cc4df7eec7d32a7814eca4af047ae33b2d52342667715682e19c25b0b9faa','run-1','deploy','opened',1,1,1);
INSERT INTO "events" VALUES(3,'acme','ac0f09c0f8bf5e7a4b063d863255f16d8ce9abe600e288d934cf313bcbff63eb','sender-ac0f09c0f8bf5e7a4b063d863255f16d8ce9abe600e288d934cf313bcbff63eb','pack.approval','requested',1799999999000000,1800000000000000,'{"kind":"pack.approval","title":"Grüezi"}','k1:00ff','task-runner','corr-ac0f09c0f8bf5e7a4b063d863255f16d8ce9abe600e288d934cf313bcbff63eb','run-2','deploy','accepted',1,0,0);
INSERT INTO "events" VALUES(4,'acme','cef7fc13a38180936ffa2635489088778e059f07a5d1beda53f1719d35577631','sender-cef7fc13a38180936ffa2635489088778e059f07a5d1beda53f1719d35577631','pack.approval','requested',1799999999000000,1800000000000000,'{"kind":"pack.approval","title":"Grüezi"}','k1:00ff','task-runner','corr-cef7fc13a38180936ffa2635489088778e059f07a5d1beda53f1719d35577631','run-3','deploy','accepted',1,0,0);
INSERT INTO "events" VALUES(5,'acme','e1','sender-e1','pack.approval','requested',1799999999000000,1800000000000000,'{"kind":"pack.approval","title":"Grüezi"}','k1:00ff','task-runner','corr-e1','run-4','deploy','accepted',1,0,0);
INSERT INTO "events" VALUES(6,'acme','xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx','sender-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx','pack.approval','requested',1799999999000000,1800000000000000,'{"kind":"pack.approval","title":"Grüezi"}','k1:00ff','task-runner','corr-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx','run-5','deploy','accepted',1,0,0);
INSERT INTO "events" VALUES(7,'acme','xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxy','sender-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxy','pack.approval','requested',1799999999000000,1800000000000000,'{"kind":"pack.approval","title":"Grüezi"}','k1:00ff','task-runner','corr-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxy','run-6','deploy','accepted',1,0,0);
INSERT INTO "events" VALUES(8,'acme','hold','sender-hold','pack.approval','requested',1799999999000000,1800000000000000,'{"kind":"pack.approval","title":"Grüezi"}','k1:00ff','task-runner','corr-hold','run-1','deploy','opened',1,1,0);
CREATE TABLE events_keys (hash INTEGER NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (hash, row)) WITHOUT ROWID;
INSERT INTO "events_keys" VALUES(225,5);
INSERT INTO "events_keys" VALUES(28322541838250,2);
INSERT INTO "events_keys" VALUES(34952662417408,8);
INSERT INTO "events_keys" VALUES(54132895343595,3);
INSERT INTO "events_keys" VALUES(64676504403968,6);
INSERT INTO "events_keys" VALUES(85579849269248,7);
INSERT INTO "events_keys" VALUES(124920018728497,4);
CREATE TABLE incidents (
    rowid INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, run_id TEXT NOT NULL, approval_id TEXT NOT NULL, policy_id TEXT NOT NULL,
    version INTEGER NOT NULL, open INTEGER NOT NULL, occurred_at INTEGER NOT NULL, opened_at INTEGER,
    closed_at INTEGER, request TEXT NOT NULL, applied TEXT NOT NULL
);
INSERT INTO "incidents" VALUES(1,'acme','run-1','deploy','prod',1,1,1800000000000000,1800000000000000,NULL,'{}','[{"event_key":"e1","version":1,"round":0,"outcome":"opened","occurred_at":0}]');
CREATE TABLE key_marks (name TEXT PRIMARY KEY, row INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "key_marks" VALUES('audit',4);
INSERT INTO "key_marks" VALUES('deliveries',2);
INSERT INTO "key_marks" VALUES('events',0);
CREATE TABLE messages (delivery INTEGER PRIMARY KEY, message TEXT NOT NULL);
INSERT INTO "messages" VALUES(1,'{"title":"Bitte entscheiden"}');
INSERT INTO "messages" VALUES(2,'{"title":"Bitte entscheiden"}');
INSERT INTO "messages" VALUES(3,'{"title":"Bitte entscheiden"}');
INSERT INTO "messages" VALUES(4,'{"title":"Bitte entscheiden"}');
INSERT INTO "messages" VALUES(5,'{"title":"Bitte entscheiden"}');
CREATE TABLE planning (               -- the events whose planning is not finished
    event INTEGER PRIMARY KEY, life INTEGER NOT NULL, until INTEGER NOT NULL
);
INSERT INTO "planning" VALUES(4,1,1800000060000000);
INSERT INTO "planning" VALUES(5,1,1800000060000000);
INSERT INTO "planning" VALUES(6,1,1800000060000000);
INSERT INTO "planning" VALUES(7,1,1800000060000000);
INSERT INTO "planning" VALUES(8,1,1800000060000000);
CREATE TABLE plans (event INTEGER PRIMARY KEY, plan TEXT NOT NULL);
INSERT INTO "plans" VALUES(1,'[{"delivery_id":"0ad52e338662c923b15fd45a73c6e97336efccf28a7aef9449443cc6dd7415fb","rule":"approvals","channel":"slack","channel_type":"slack","recipient":null,"personal":false,"template":"pack-approval","locale":"de-CH"}]');
INSERT INTO "plans" VALUES(2,'[{"delivery_id":"8b53639f152c8fc6ef30802fde462ba0be9cf085f7580dc69efd72e002abbb35","rule":"approvals","channel":"slack","channel_type":"slack","recipient":null,"personal":false,"template":"pack-approval","locale":"de-CH"}]');
INSERT INTO "plans" VALUES(3,'[{"delivery_id":"e788103ee15318fcd2af9b73b4ebbb33a903b020de7b307d71f5fed0f433e548","rule":"approvals","channel":"slack","channel_type":"slack","recipient":null,"personal":false,"template":"pack-approval","locale":"de-CH"}]');
CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    life INTEGER NOT NULL,       -- grows at every opening; a lease of an earlier life is void
    probed_at INTEGER NOT NULL
);
INSERT INTO "store" VALUES(1,1,0);
CREATE UNIQUE INDEX approvals_key ON approvals (tenant, run_id, approval_id);
CREATE INDEX approvals_by_tenant ON approvals (tenant);
CREATE INDEX approvals_pending ON approvals (tenant) WHERE status = 'pending';
CREATE INDEX approvals_due ON approvals (expires_at) WHERE status = 'pending';
CREATE INDEX approvals_owing ON approvals (version) WHERE effects <> '[]';
CREATE UNIQUE INDEX incidents_key ON incidents (tenant, run_id, approval_id, policy_id);
CREATE INDEX deliveries_by_tenant ON deliveries (tenant);
CREATE INDEX deliveries_due ON deliveries (lane, tenant, rule, due_at, life, lease_until, deadline)
    WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_order ON deliveries (tenant, run_id, approval_id, seq)
    WHERE due_at IS NOT NULL AND run_id IS NOT NULL;
CREATE INDEX deliveries_window ON deliveries (tenant, window, next_attempt_at) WHERE window IS NOT NULL;
CREATE INDEX deliveries_closing ON deliveries (next_attempt_at, window_start) WHERE window IS NOT NULL;
CREATE INDEX deliveries_budget ON deliveries (tenant, budget, created_at) WHERE budget IS NOT NULL;
CREATE INDEX deliveries_open ON deliveries (tenant) WHERE state IN ('pending', 'sending');
CREATE INDEX deliveries_dead ON deliveries (tenant, channel) WHERE state = 'dead';
CREATE INDEX audit_by_tenant ON audit (tenant);
CREATE INDEX audit_by_run ON audit (tenant, run_id, approval_id) WHERE run_id IS NOT NULL;
CREATE INDEX events_by_age ON events (received_at);
CREATE INDEX approvals_by_age ON approvals (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX incidents_by_age ON incidents (closed_at) WHERE open = 0;
CREATE INDEX deliveries_by_age ON deliveries (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX audit_by_age ON audit (at);
COMMIT;
