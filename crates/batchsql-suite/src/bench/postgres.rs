//! Owns the measurement against PostgreSQL: its tables, and the hand-written loops: COPY BINARY for plain inserts,
//! UNNEST arrays where a key may exist. Must not know other databases.

use std::ops::Range;

use anyhow::{Context, Result};
use batchsql::TimestampTz;
use batchsql::postgres::PostgresSink;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgConnection, PgHasArrayType, PgPoolOptions, PgTypeInfo};
use sqlx::{Encode, Executor, PgPool, Type};

use super::figures::{Figure, Plan};
use super::server::{self, Server};
use super::workload::{Workload, Writer};
use crate::database::DatabaseName;
use crate::rows::Texts;

/// Microseconds from 1970 to 2000, the epoch of PostgreSQL.
const EPOCH: i64 = 946_684_800_000_000;

/// Measures the pipeline against hand-written loops, from the first row to everything committed.
///
/// # Errors
/// The server fails.
pub async fn postgres(plan: Plan, dsn: &str) -> Result<Vec<Figure>> {
    server::measure::<Postgres>(plan, dsn).await
}

/// A PostgreSQL server.
#[derive(Debug)]
pub(super) struct Postgres(PgPool);

impl Server for Postgres {
    const NAME: DatabaseName = DatabaseName::Postgres;
    type Sink = PostgresSink;
    type Writer = PoolConnection<sqlx::Postgres>;

    async fn connect(dsn: &str, connections: usize) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(connections as u32).min_connections(connections as u32);
        let pool = pool.connect(dsn).await.context("cannot connect to the server of POSTGRES_DSN")?;
        Ok(Self(pool))
    }

    async fn sink(dsn: &str) -> Result<PostgresSink> {
        Ok(PostgresSink::connect(dsn).await?)
    }

    fn by_hand(workload: Workload) -> &'static str {
        if workload == Workload::Insert { "COPY BINARY" } else { "UNNEST" }
    }

    fn create(workload: Workload) -> &'static str {
        match workload {
            Workload::Insert | Workload::Ignore | Workload::UpdateEvents => {
                "CREATE TABLE batchsql_suite_events (
                     id BIGINT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, payload TEXT NOT NULL,
                     amount DOUBLE PRECISION NOT NULL, active BOOLEAN NOT NULL, created_at TIMESTAMPTZ NOT NULL);
                 CREATE INDEX ON batchsql_suite_events (email);
                 CREATE INDEX ON batchsql_suite_events (created_at);"
            }
            Workload::Update => {
                "CREATE TABLE batchsql_suite_accounts (
                     id BIGINT PRIMARY KEY, version BIGINT NOT NULL, owner TEXT NOT NULL, note TEXT);"
            }
        }
    }

    fn fill() -> &'static str {
        "INSERT INTO batchsql_suite_events
         SELECT -n, concat('user ', n), concat('before', n, '@example.org'), concat('payload of row ', n), n / 8.0, n % 3 = 0,
                timestamptz '2024-01-01' + n * interval '617 seconds' FROM generate_series(1, 50000) AS n"
    }

    async fn writer(&self) -> Result<PoolConnection<sqlx::Postgres>> {
        Ok(self.0.acquire().await?)
    }

    async fn execute(&self, sql: &str) -> Result<()> {
        self.0.execute(sql).await?;
        Ok(())
    }

    async fn count(&self, table: &str) -> Result<usize> {
        let found: i64 = sqlx::query_scalar(&format!("SELECT count(*) FROM {table}")).fetch_one(&self.0).await?;
        Ok(found as usize)
    }

    async fn settle(&self) -> Result<()> {
        self.execute("CHECKPOINT").await
    }
}

impl Writer for PoolConnection<sqlx::Postgres> {
    async fn write(&mut self, workload: Workload, texts: &[Texts], rows: Range<usize>) -> Result<()> {
        match workload {
            Workload::Insert => copy(self, workload, texts, rows).await,
            Workload::Ignore | Workload::UpdateEvents => unnest_events(self, workload, texts, rows).await,
            Workload::Update => unnest_accounts(self, workload, texts, rows).await,
        }
    }
}

async fn copy(connection: &mut PgConnection, workload: Workload, texts: &[Texts], rows: Range<usize>) -> Result<()> {
    const COPY: &str =
        "COPY batchsql_suite_events (id,name,email,payload,amount,active,created_at) FROM STDIN (FORMAT BINARY)";
    let mut data = Vec::with_capacity(rows.len() * 200);
    data.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    let field = |data: &mut Vec<u8>, bytes: &[u8]| {
        data.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        data.extend_from_slice(bytes);
    };
    for n in rows {
        let event = workload.event(texts, n);
        data.extend_from_slice(&7_i16.to_be_bytes());
        field(&mut data, &event.id.to_be_bytes());
        field(&mut data, event.name.as_bytes());
        field(&mut data, event.email.as_bytes());
        field(&mut data, event.payload.as_bytes());
        field(&mut data, &event.amount.to_be_bytes());
        field(&mut data, &[event.active.into()]);
        field(&mut data, &(event.created_at.micros_since_epoch() - EPOCH).to_be_bytes());
    }
    data.extend_from_slice(&(-1_i16).to_be_bytes());
    let mut copy = connection.copy_in_raw(COPY).await?;
    copy.send(data).await?;
    copy.finish().await?;
    Ok(())
}

async fn unnest_events(
    connection: &mut PgConnection,
    workload: Workload,
    texts: &[Texts],
    rows: Range<usize>,
) -> Result<()> {
    const IGNORE: &str = "INSERT INTO batchsql_suite_events (id,name,email,payload,amount,active,created_at)
         SELECT * FROM unnest($1::bigint[],$2::text[],$3::text[],$4::text[],$5::float8[],$6::boolean[],$7::timestamptz[])
         ON CONFLICT (id) DO NOTHING";
    const UPSERT: &str = "INSERT INTO batchsql_suite_events (id,name,email,payload,amount,active,created_at)
         SELECT * FROM unnest($1::bigint[],$2::text[],$3::text[],$4::text[],$5::float8[],$6::boolean[],$7::timestamptz[])
         ON CONFLICT (id) DO UPDATE SET name=excluded.name,email=excluded.email,payload=excluded.payload,
         amount=excluded.amount,active=excluded.active,created_at=excluded.created_at";
    let mut events: Vec<_> = rows.map(|n| workload.event(texts, n)).collect();
    if workload == Workload::UpdateEvents {
        // Sorted to avoid deadlocks between the loops.
        events.sort_by_key(|event| event.id);
    }
    sqlx::query(if workload == Workload::UpdateEvents { UPSERT } else { IGNORE })
        .bind(events.iter().map(|event| event.id).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.name).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.email).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.payload).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.amount).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.active).collect::<Vec<_>>())
        .bind(events.iter().map(|event| Instant(event.created_at)).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

async fn unnest_accounts(
    connection: &mut PgConnection,
    workload: Workload,
    texts: &[Texts],
    rows: Range<usize>,
) -> Result<()> {
    const UPSERT: &str = "INSERT INTO batchsql_suite_accounts (id,version,owner,note)
         SELECT * FROM unnest($1::bigint[],$2::bigint[],$3::text[],$4::text[])
         ON CONFLICT (id) DO UPDATE SET version=excluded.version,owner=excluded.owner,note=excluded.note";
    let mut accounts: Vec<_> = rows.map(|n| workload.account(texts, n)).collect();
    // Sorted to avoid deadlocks between the loops.
    accounts.sort_by_key(|account| account.id);
    sqlx::query(UPSERT)
        .bind(accounts.iter().map(|account| account.id).collect::<Vec<_>>())
        .bind(accounts.iter().map(|account| account.version).collect::<Vec<_>>())
        .bind(accounts.iter().map(|account| account.owner).collect::<Vec<_>>())
        .bind(accounts.iter().map(|account| account.note).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// A `timestamptz`, in the bytes that `chrono::DateTime` becomes. The feature `chrono` of sqlx would bring the SQLite of
/// sqlx, which clashes with ours.
struct Instant(TimestampTz);

impl Type<sqlx::Postgres> for Instant {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl PgHasArrayType for Instant {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1185))
    }
}

impl Encode<'_, sqlx::Postgres> for Instant {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&(self.0.micros_since_epoch() - EPOCH).to_be_bytes());
        Ok(IsNull::No)
    }
}
