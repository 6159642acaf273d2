-- The app's role and database. The limit is the hard cap on what all nodes together may
-- open; the pool's budget in cluster.yaml is below it.
CREATE ROLE app LOGIN PASSWORD 'not-a-secret-either' CONNECTION LIMIT 22;
CREATE DATABASE app OWNER app;
