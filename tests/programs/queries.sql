-- A table on disk, an index, a transaction that is rolled back, and a large sort. Read by sqlite3 -init.
PRAGMA journal_mode = WAL;
PRAGMA mmap_size = 16777216;
CREATE TABLE numbers (id INTEGER PRIMARY KEY, square INTEGER, name TEXT);
WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < 50000)
INSERT INTO numbers SELECT n, n * n, 'number ' || n FROM counter;
CREATE INDEX by_name ON numbers (name);
SELECT count(*), sum(square) FROM numbers;
SELECT name FROM numbers WHERE name LIKE 'number 4999%' ORDER BY name DESC LIMIT 3;
BEGIN;
DELETE FROM numbers;
ROLLBACK;
SELECT max(id) FROM numbers;
SELECT a.id FROM numbers a JOIN numbers b ON a.square = b.id ORDER BY a.id DESC LIMIT 2;
VACUUM;
PRAGMA integrity_check;
