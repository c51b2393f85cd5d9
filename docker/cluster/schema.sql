-- The tables of the cluster, made at the first start of PostgreSQL. front.toml declares the same columns.
CREATE TABLE orders (
  id bigint PRIMARY KEY,
  customer text NOT NULL,
  total double precision,
  version bigint NOT NULL
);
