-- A state.db of version 2 as a server left it, with devices, sessions, deliveries and attempts in it; its secrets are gone.
BEGIN TRANSACTION;
CREATE TABLE attempt (
    id text primary key,
    delivery text not null,
    integration text not null references integration (id) on delete cascade,
    started_at integer not null,
    ok integer not null,
    device text,

    record text not null,
    detail blob
);
INSERT INTO "attempt" VALUES('01a21f655852b383f1dc8477c6adf290','01a21f65582f376c94ea3e8764d703c2','01a21f6557fc00aa3b185f8f',1795823065170,1,NULL,'{"id":"01a21f655852b383f1dc8477c6adf290","delivery":"01a21f65582f376c94ea3e8764d703c2","integration":"01a21f6557fc00aa3b185f8f","owner":"01a21f6541e800e10ba3a2a72e8dbfb0","event_id":"01a21f65582f00aa3b1e5f8fa0a26774","event_name":"good/0","device":null,"coreid":"api","number":1,"started_at":1795823065170,"duration_ms":19,"ok":true,"final":true,"status":200,"why":null,"detail":null}','{"request":{"method":"POST","url":"http://127.0.0.1:33939/good","headers":[["User-Agent","Wirechamber/0.1.0 (webhooks)"]],"body":"good/0 0","body_length":8},"response":{"status":200,"headers":[["Server","BaseHTTP/0.6 Python/3.11.7"],["Date","Fri, 27 Nov 2026 23:44:25 GMT"],["Content-Length","0"]],"body":""},"duration_ms":18,"address":"127.0.0.1"}');
INSERT INTO "attempt" VALUES('01a21f65585dd5dbb29ee29158c73128','01a21f6558567251421f77184c201e1f','01a21f65580500aa3b195f8f',1795823065181,0,NULL,'{"id":"01a21f65585dd5dbb29ee29158c73128","delivery":"01a21f6558567251421f77184c201e1f","integration":"01a21f65580500aa3b195f8f","owner":"01a21f6541e800e10ba3a2a72e8dbfb0","event_id":"01a21f65585600aa3b1f5f8fa0a26774","event_name":"bad/0","device":null,"coreid":"api","number":1,"started_at":1795823065181,"duration_ms":14,"ok":false,"final":false,"status":500,"why":"error status 500 from 127.0.0.1","detail":null}','{"request":{"method":"POST","url":"http://127.0.0.1:42825/bad","headers":[["User-Agent","Wirechamber/0.1.0 (webhooks)"]],"body":"bad/0 0","body_length":7},"response":{"status":500,"headers":[["Server","BaseHTTP/0.6 Python/3.11.7"],["Date","Fri, 27 Nov 2026 23:44:25 GMT"],["Content-Length","2"]],"body":"no","body_length":2},"error":"error status 500 from 127.0.0.1","duration_ms":14,"address":"127.0.0.1"}');
INSERT INTO "attempt" VALUES('01a21f65587053428e7089cc3a7f08f8','01a21f65586f0d1834d64e4dde475119','01a21f65580e00aa3b1a5f8f',1795823065200,0,NULL,'{"id":"01a21f65587053428e7089cc3a7f08f8","delivery":"01a21f65586f0d1834d64e4dde475119","integration":"01a21f65580e00aa3b1a5f8f","owner":"01a21f6541e800e10ba3a2a72e8dbfb0","event_id":"01a21f65586f00aa3b205f8fa0a26774","event_name":"dead/0","device":null,"coreid":"api","number":1,"started_at":1795823065200,"duration_ms":5,"ok":false,"final":true,"status":404,"why":"error status 404 from 127.0.0.1","detail":null}','{"request":{"method":"POST","url":"http://127.0.0.1:42825/dead","headers":[["User-Agent","Wirechamber/0.1.0 (webhooks)"]],"body":"dead/0 0","body_length":8},"response":{"status":404,"headers":[["Server","BaseHTTP/0.6 Python/3.11.7"],["Date","Fri, 27 Nov 2026 23:44:25 GMT"],["Content-Length","4"]],"body":"gone","body_length":4},"error":"error status 404 from 127.0.0.1","duration_ms":5,"address":"127.0.0.1"}');
INSERT INTO "attempt" VALUES('01a21f65589037a7de6176ff6b46bed4','01a21f65588a13d506d639e46983d04b','01a21f6557fc00aa3b185f8f',1795823065232,1,NULL,'{"id":"01a21f65589037a7de6176ff6b46bed4","delivery":"01a21f65588a13d506d639e46983d04b","integration":"01a21f6557fc00aa3b185f8f","owner":"01a21f6541e800e10ba3a2a72e8dbfb0","event_id":"01a21f65588a00aa3b225f8fa0a26774","event_name":"good/1","device":null,"coreid":"api","number":1,"started_at":1795823065232,"duration_ms":1,"ok":true,"final":true,"status":200,"why":null,"detail":null}','{"request":{"method":"POST","url":"http://127.0.0.1:33939/good","headers":[["User-Agent","Wirechamber/0.1.0 (webhooks)"]],"body":"good/1 1","body_length":8},"response":{"status":200,"headers":[["Server","BaseHTTP/0.6 Python/3.11.7"],["Date","Fri, 27 Nov 2026 23:44:25 GMT"],["Content-Length","0"]],"body":""},"address":"127.0.0.1"}');
CREATE TABLE claim_code (
    digest blob primary key,
    owner text not null references user (id) on delete cascade,
    created_at integer not null,
    expires_at integer not null,
    device text
) without rowid;
CREATE TABLE counter (
    integration text not null references integration (id) on delete cascade,
    day integer not null,
    success integer not null default 0,
    error integer not null default 0,
    retried integer not null default 0,
    primary key (integration, day)
) without rowid;
INSERT INTO "counter" VALUES('01a21f6557fc00aa3b185f8f',20784,440,0,0);
INSERT INTO "counter" VALUES('01a21f65580500aa3b195f8f',20784,0,0,400);
INSERT INTO "counter" VALUES('01a21f65580e00aa3b1a5f8f',20784,0,200,0);
CREATE TABLE delivery (
    id text primary key,
    integration text not null references integration (id) on delete cascade,
    owner text not null,
    state text not null,
    due_at integer not null,
    deadline_at integer not null,
    error_told integer not null,
    attempts integer not null,
    created_at integer not null,
    cursor text not null,
    why text,

    event text not null
);
INSERT INTO "delivery" VALUES('01a21f65586f0d1834d64e4dde475119','01a21f65580e00aa3b1a5f8f','01a21f6541e800e10ba3a2a72e8dbfb0','dead',1795823065205,1795823185199,1,1,1795823065199,'4','error status 404 from 127.0.0.1','{"id":"01a21f65586f00aa3b205f8fa0a26774","name":"dead/0","data":"0","published_at":1795823065199,"received_at":1795823065199,"owner":"01a21f6541e800e10ba3a2a72e8dbfb0","coreid":"api","partition":"01a21f6541e800e10ba3a2a72e8dbfb0","origin":"api","product":null,"device":null,"cause":null,"depth":0,"about":null,"content_type":"text/plain","ttl":60,"late":false,"session":null,"record":null,"message":null}');
INSERT INTO "delivery" VALUES('01a21f6558ab4621390330419fd73923','01a21f65580e00aa3b1a5f8f','01a21f6541e800e10ba3a2a72e8dbfb0','dead',1795823065271,1795823185266,1,1,1795823065266,'10','error status 404 from 127.0.0.1','{"id":"01a21f6558ab00aa3b245f8fa0a26774","name":"dead/1","data":"1","published_at":1795823065259,"received_at":1795823065259,"owner":"01a21f6541e800e10ba3a2a72e8dbfb0","coreid":"api","partition":"01a21f6541e800e10ba3a2a72e8dbfb0","origin":"api","product":null,"device":null,"cause":null,"depth":0,"about":null,"content_type":"text/plain","ttl":60,"late":false,"session":null,"record":null,"message":null}');
INSERT INTO "delivery" VALUES('01a21f655edbd1f7656946b98a88e833','01a21f65580500aa3b195f8f','01a21f6541e800e10ba3a2a72e8dbfb0','waiting',1795825960279,1795823186844,0,2,1795823066844,'384','error status 500 from 127.0.0.1','{"id":"01a21f655edb00aa3c275f8fa0a26774","name":"bad/56","data":"56","published_at":1795823066843,"received_at":1795823066843,"owner":"01a21f6541e800e10ba3a2a72e8dbfb0","coreid":"api","partition":"01a21f6541e800e10ba3a2a72e8dbfb0","origin":"api","product":null,"device":null,"cause":null,"depth":0,"about":null,"content_type":"text/plain","ttl":60,"late":false,"session":null,"record":null,"message":null}');
INSERT INTO "delivery" VALUES('01a21f6564d71d28bc57ced46cb63ca0','01a21f65580500aa3b195f8f','01a21f6541e800e10ba3a2a72e8dbfb0','waiting',1795825958075,1795823188379,0,2,1795823068379,'936','error status 500 from 127.0.0.1','{"id":"01a21f6564d700aa3d475f8fa0a26774","name":"bad/128","data":"128","published_at":1795823068375,"received_at":1795823068375,"owner":"01a21f6541e800e10ba3a2a72e8dbfb0","coreid":"api","partition":"01a21f6541e800e10ba3a2a72e8dbfb0","origin":"api","product":null,"device":null,"cause":null,"depth":0,"about":null,"content_type":"text/plain","ttl":60,"late":false,"session":null,"record":null,"message":null}');
CREATE TABLE device (
    id text primary key,
    owner text references user (id) on delete set null,
    name text,
    name_key text,
    created_at integer not null,

    record text not null
, changed integer not null default 0) without rowid;
INSERT INTO "device" VALUES('005e61d9f16864d592680001','01a21f6541e800e10ba3a2a72e8dbfb0','simulated-00015','simulated-00015',1795823066143,'{"id":"005e61d9f16864d592680001","created_at":1795823066143,"owner":"01a21f6541e800e10ba3a2a72e8dbfb0","name":"simulated-00015","notes":null,"platform_id":3,"product_id":3,"serial_number":null,"online":false,"last_ip_address":null,"last_heard":null,"last_handshake_at":null,"firmware_product_id":null,"firmware_version":null,"system_version":null,"functions":[],"variables":{},"key":null}',42);
INSERT INTO "device" VALUES('04701325fd1d30404e088bbc','01a21f6541e800e10ba3a2a72e8dbfb0','simulated-00013','simulated-00013',1795823066123,'{"id":"04701325fd1d30404e088bbc","created_at":1795823066123,"owner":"01a21f6541e800e10ba3a2a72e8dbfb0","name":"simulated-00013","notes":null,"platform_id":3,"product_id":3,"serial_number":null,"online":false,"last_ip_address":null,"last_heard":null,"last_handshake_at":null,"firmware_product_id":null,"firmware_version":null,"system_version":null,"functions":[],"variables":{},"key":null}',38);
CREATE TABLE device_key (
    device text primary key references device (id) on delete cascade,

    public_key text,

    psk text,
    changed_at integer not null,
    changed integer not null default 0
) without rowid;
INSERT INTO "device_key" VALUES('005e61d9f16864d592680001','MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE3egMmLP/qujBP7PzjNy2Xnr6fAipLLihYih8HlSxRbHjijwOl0afirY+LnTnd92brA2sP5QQn7IBq+ZSES2m6g==',NULL,1795823066151,70);
INSERT INTO "device_key" VALUES('04701325fd1d30404e088bbc','MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEMz6wUMpBmxs13N22vSSqXbfL63zyEwzFlZEhuJblp3DFmW9D1b+1mJXz4Qw5cjfswPnYrZa3RYc43AgLX7Zx2w==',NULL,1795823066124,71);
CREATE TABLE device_removed (id text primary key, changed integer not null) without rowid;
CREATE TABLE integration (
    id text primary key,
    owner text not null references user (id) on delete cascade,
    created_at integer not null,
    changed integer not null,

    record text not null,

    secrets blob
) without rowid;
INSERT INTO "integration" VALUES('01a21f6557fc00aa3b185f8f','01a21f6541e800e10ba3a2a72e8dbfb0',1795823065084,6,'{"id":"01a21f6557fc00aa3b185f8f","owner":"01a21f6541e800e10ba3a2a72e8dbfb0","kind":"Webhook","event":"good","created_at":1795823065084,"updated_at":1795823065084,"device":null,"name":"good for 127.0.0.1","disabled":false,"settings":{"url":"http://127.0.0.1:33939/good","requestType":"POST","noDefaults":false,"rejectUnauthorized":true,"unchunked":false,"dataUrlResponseEvent":false,"body":"{{PARTICLE_EVENT_NAME}} {{PARTICLE_EVENT_VALUE}}"},"secrets":{},"since":"0","paused":null,"revision":0}',NULL);
INSERT INTO "integration" VALUES('01a21f65580500aa3b195f8f','01a21f6541e800e10ba3a2a72e8dbfb0',1795823065093,7,'{"id":"01a21f65580500aa3b195f8f","owner":"01a21f6541e800e10ba3a2a72e8dbfb0","kind":"Webhook","event":"bad","created_at":1795823065093,"updated_at":1795823065093,"device":null,"name":"bad for 127.0.0.1","disabled":false,"settings":{"url":"http://127.0.0.1:42825/bad","requestType":"POST","noDefaults":false,"rejectUnauthorized":true,"unchunked":false,"dataUrlResponseEvent":false,"body":"{{PARTICLE_EVENT_NAME}} {{PARTICLE_EVENT_VALUE}}"},"secrets":{},"since":"0","paused":null,"revision":0}',NULL);
INSERT INTO "integration" VALUES('01a21f65580e00aa3b1a5f8f','01a21f6541e800e10ba3a2a72e8dbfb0',1795823065102,8,'{"id":"01a21f65580e00aa3b1a5f8f","owner":"01a21f6541e800e10ba3a2a72e8dbfb0","kind":"Webhook","event":"dead","created_at":1795823065102,"updated_at":1795823065102,"device":null,"name":"dead for 127.0.0.1","disabled":false,"settings":{"url":"http://127.0.0.1:42825/dead","requestType":"POST","noDefaults":false,"rejectUnauthorized":true,"unchunked":false,"dataUrlResponseEvent":false,"body":"{{PARTICLE_EVENT_NAME}} {{PARTICLE_EVENT_VALUE}}"},"secrets":{},"since":"0","paused":null,"revision":0}',NULL);
CREATE TABLE integration_removed (id text primary key, changed integer not null) without rowid;
CREATE TABLE link (
    device text primary key references device (id) on delete cascade,
    online integer not null default 0,
    last_heard integer,
    last_handshake_at integer,
    address text not null default '',
    resume_from text
) without rowid;
INSERT INTO "link" VALUES('005e61d9f16864d592680001',1,1795823072783,1795823066233,'127.0.0.1',NULL);
INSERT INTO "link" VALUES('04701325fd1d30404e088bbc',1,1795823072668,1795823066233,'127.0.0.1',NULL);
CREATE TABLE memory (
    integration text not null references integration (id) on delete cascade,
    key text not null,
    value text not null,
    primary key (integration, key)
) without rowid;
CREATE TABLE metrics (
    device text primary key references device (id) on delete cascade,
    at integer not null,
    metrics text not null
) without rowid;
CREATE TABLE progress (
    session text primary key references session (id) on delete cascade,
    send_limit integer not null,
    top integer not null,

    mids text not null,
    address text not null
) without rowid;
INSERT INTO "progress" VALUES('00000000000000000000000000000000',4096,17,'','127.0.0.1');
INSERT INTO "progress" VALUES('00000000000000000000000000000001',4096,17,'','127.0.0.1');
CREATE TABLE reader (name text primary key, cursor text not null) without rowid;
INSERT INTO "reader" VALUES('dispatch','1700');
INSERT INTO "reader" VALUES('links','1665');
CREATE TABLE revision (one integer primary key check (one = 1), value integer not null);
INSERT INTO "revision" VALUES(1,78);
CREATE TABLE session (
    id text primary key,
    device text references device (id) on delete cascade,

    cid text unique,
    deviceos integer not null,
    created_at integer not null,

    state text not null
) without rowid;
INSERT INTO "session" VALUES('00000000000000000000000000000000','005e61d9f16864d592680001','0000000000000000',1,1795823066233,X'00');
INSERT INTO "session" VALUES('00000000000000000000000000000001','04701325fd1d30404e088bbc','0000000000000001',1,1795823066233,X'00');
CREATE TABLE subscription (
    device text not null references device (id) on delete cascade,
    prefix text not null,

    sender text not null,
    binary integer not null,
    cbor integer not null,

    token text not null default '',
    primary key (device, prefix, sender)
) without rowid;
CREATE TABLE token (
    digest blob primary key,
    user text not null references user (id) on delete cascade,
    hint text not null,
    client text not null,
    scopes text not null,
    created_at integer not null,
    expires_at integer
) without rowid;
CREATE TABLE told (
    device text primary key references device (id) on delete cascade,
    greeting text,
    functions text,
    variables text,
    system text,
    system_at integer
) without rowid;
INSERT INTO "told" VALUES('005e61d9f16864d592680001','{"platform":3,"product":3,"flags":48,"system_version":6200,"max_message":1152,"max_binary":0,"ota_chunk":512}','[]','{}','{"modules":[{"type":"monolithic","index":0,"version":0,"store":"main","max_size":0,"checked":0,"passed":0,"hash":null,"dependencies":[],"assets":[],"size":0,"protected":false}],"platform":null,"imei":null,"iccid":null,"modem_version":null,"assets":[],"protected":false}',1795823066297);
INSERT INTO "told" VALUES('04701325fd1d30404e088bbc','{"platform":3,"product":3,"flags":48,"system_version":6200,"max_message":1152,"max_binary":0,"ota_chunk":512}','[]','{}','{"modules":[{"type":"monolithic","index":0,"version":0,"store":"main","max_size":0,"checked":0,"passed":0,"hash":null,"dependencies":[],"assets":[],"size":0,"protected":false}],"platform":null,"imei":null,"iccid":null,"modem_version":null,"assets":[],"protected":false}',1795823066297);
CREATE TABLE usage (
    device text not null references device (id) on delete cascade,
    hour integer not null,
    purpose integer not null,
    up_bytes integer not null,
    up_datagrams integer not null,
    down_bytes integer not null,
    down_datagrams integer not null,
    publishes integer not null,
    data_bytes integer not null,
    primary key (device, hour, purpose)
) without rowid;
INSERT INTO "usage" VALUES('005e61d9f16864d592680001',498839,0,695,3,510,3,0,0);
INSERT INTO "usage" VALUES('005e61d9f16864d592680001',498839,1,1243,11,674,11,10,200);
INSERT INTO "usage" VALUES('005e61d9f16864d592680001',498839,4,275,3,189,3,0,0);
INSERT INTO "usage" VALUES('04701325fd1d30404e088bbc',498839,0,694,3,510,3,0,0);
INSERT INTO "usage" VALUES('04701325fd1d30404e088bbc',498839,1,1243,11,674,11,10,200);
INSERT INTO "usage" VALUES('04701325fd1d30404e088bbc',498839,4,275,3,189,3,0,0);
CREATE TABLE user (
    id text primary key,
    name text not null,

    name_key text not null unique,
    password text not null,
    created_at integer not null,
    account_info text not null
) without rowid;
INSERT INTO "user" VALUES('01a21f6541e800e10ba3a2a72e8dbfb0','ann','ann','x',1795823059432,'{}');
INSERT INTO "user" VALUES('01a21f654dde00e70bf57a14e1bdf485','bob','bob','x',1795823062494,'{}');
CREATE INDEX token_user on token (user, created_at);
CREATE INDEX token_expiry on token (expires_at) where expires_at is not null;
CREATE UNIQUE INDEX device_name on device (owner, name_key) where owner is not null and name_key is not null;
CREATE INDEX integration_owner on integration (owner, created_at, id);
CREATE INDEX integration_changed on integration (changed);
CREATE INDEX integration_removed_changed on integration_removed (changed);
CREATE INDEX delivery_due on delivery (state, integration, due_at);
CREATE INDEX delivery_time on delivery (due_at) where state = 'waiting';
CREATE INDEX delivery_deadline on delivery (deadline_at) where error_told = 0 and state in ('waiting', 'held');
CREATE INDEX delivery_integration on delivery (integration);
CREATE INDEX attempt_integration on attempt (integration, id);
CREATE INDEX attempt_delivery on attempt (delivery);
CREATE INDEX attempt_body on attempt (integration, id) where detail is not null and ok = 1;
CREATE INDEX attempt_age on attempt (started_at);
CREATE TRIGGER user_added after insert on user begin update revision set value = value + 1; end;
CREATE TRIGGER user_changed after update on user begin update revision set value = value + 1; end;
CREATE TRIGGER user_removed after delete on user begin update revision set value = value + 1; end;
CREATE TRIGGER token_added after insert on token begin update revision set value = value + 1; end;
CREATE TRIGGER token_removed after delete on token begin update revision set value = value + 1; end;
CREATE TRIGGER integration_added after insert on integration begin
    update revision set value = value + 1;
    update integration set changed = (select value from revision) where id = new.id;
end;
CREATE TRIGGER integration_changed after update of record, secrets on integration begin
    update revision set value = value + 1;
    update integration set changed = (select value from revision) where id = new.id;
end;
CREATE TRIGGER integration_gone after delete on integration begin
    update revision set value = value + 1;
    insert or replace into integration_removed values (old.id, (select value from revision));
end;
CREATE INDEX device_owner on device (owner, created_at desc);
CREATE INDEX device_changed_at on device (changed);
CREATE INDEX device_removed_changed on device_removed (changed);
CREATE TRIGGER device_added after insert on device begin
    update revision set value = value + 1;
    update device set changed = (select value from revision) where id = new.id;
    delete from device_removed where id = new.id;
end;
CREATE TRIGGER device_changed after update of owner, name, name_key, record on device begin
    update revision set value = value + 1;
    update device set changed = (select value from revision) where id = new.id;
end;
CREATE TRIGGER device_gone after delete on device begin
    update revision set value = value + 1;
    insert or replace into device_removed values (old.id, (select value from revision));
end;
CREATE INDEX device_key_changed on device_key (changed);
CREATE TRIGGER device_key_added after insert on device_key begin
    update revision set value = value + 1;
    update device_key set changed = (select value from revision) where device = new.device;
    delete from session where device = new.device;
end;
CREATE TRIGGER device_key_changed after update of public_key, psk on device_key begin
    update revision set value = value + 1;
    update device_key set changed = (select value from revision) where device = new.device;
    delete from session where device = new.device;
end;
CREATE INDEX claim_code_expiry on claim_code (expires_at);
CREATE INDEX session_device on session (device);
CREATE INDEX link_online on link (device) where online = 1;
CREATE INDEX usage_hour on usage (hour);
COMMIT;
pragma user_version = 2;
