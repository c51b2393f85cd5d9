//! Owns the measurement against PostgreSQL: the pipeline, and loops by hand over the same client, the same table
//! and the same rows: COPY BINARY for plain inserts, UNNEST arrays where a key may be there.
//! Must not know other databases.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use batchsql::TimestampTz;
use batchsql::postgres::PostgresSink;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Executor, PgPool};

use super::figures::{Figure, Plan, summarise};
use super::workload::{BATCH, IN_FLIGHT, PRODUCERS, Workload, hand_written, pipeline, rate};
use crate::rows::Texts;

/// Microseconds from 1970 to 2000, where PostgreSQL counts from.
const EPOCH: i64 = 946_684_800_000_000;

/// Measures the pipeline against hand-written loops, from the first row to everything committed.
///
/// # Errors
/// The server fails.
pub async fn postgres(plan: Plan, dsn: &str) -> Result<Vec<Figure>> {
    let pool = PgPoolOptions::new().max_connections(IN_FLIGHT as u32).min_connections(IN_FLIGHT as u32);
    let pool = pool.connect(dsn).await.context("cannot connect to the server of POSTGRES_DSN")?;
    let sink = PostgresSink::connect(dsn).await?;
    let mut figures = Vec::new();
    for workload in [Workload::Insert, Workload::Ignore, Workload::Update] {
        let texts = workload.texts(plan.rows);
        let mut rounds = Vec::new();
        for round in 0..plan.rounds {
            eprintln!("postgres, {}, round {} of {}", workload.name(), round + 1, plan.rounds);
            create(&pool, workload).await?;
            let by_hand = rate(plan.rows, by_hand(workload, &pool, &texts).await?);
            check(&pool, workload, plan.rows).await?;
            create(&pool, workload).await?;
            let ours = rate(plan.rows, pipeline(sink.clone(), workload, &texts).await?);
            check(&pool, workload, plan.rows).await?;
            rounds.push(vec![by_hand, ours]);
        }
        let baseline = match workload {
            Workload::Insert => "hand-written COPY BINARY loop",
            Workload::Ignore | Workload::Update => "hand-written UNNEST loop",
        };
        let group = format!("postgres, {}, batch {BATCH}, {IN_FLIGHT} in flight", workload.name());
        figures.extend(summarise(&group, &[baseline, &format!("batchsql, {PRODUCERS} producers")], &rounds));
    }
    clean_up(&pool).await?;
    Ok(figures)
}

async fn clean_up(pool: &PgPool) -> Result<()> {
    pool.execute("DROP TABLE IF EXISTS batchsql_suite_events, batchsql_suite_accounts").await?;
    Ok(())
}

async fn create(pool: &PgPool, workload: Workload) -> Result<()> {
    clean_up(pool).await?;
    pool.execute(match workload {
        Workload::Insert | Workload::Ignore => {
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
    })
    .await?;
    // What the last round left to write does not slow this one down.
    pool.execute("CHECKPOINT").await?;
    Ok(())
}

async fn check(pool: &PgPool, workload: Workload, rows: usize) -> Result<()> {
    let table = workload.table();
    let found: i64 = sqlx::query_scalar(&format!("SELECT count(*) FROM {table}")).fetch_one(pool).await?;
    let expected = workload.rows_afterwards(rows);
    anyhow::ensure!(found == expected as i64, "{table} has {found} rows instead of {expected}");
    Ok(())
}

async fn by_hand(workload: Workload, pool: &PgPool, texts: &Arc<Vec<Texts>>) -> Result<Duration> {
    hand_written(texts.len(), || {
        let (pool, texts) = (pool.clone(), Arc::clone(texts));
        move |rows| {
            let (pool, texts) = (pool.clone(), Arc::clone(&texts));
            async move {
                match workload {
                    Workload::Insert => copy(&pool, workload, &texts, rows).await,
                    Workload::Ignore => unnest_events(&pool, workload, &texts, rows).await,
                    Workload::Update => unnest_accounts(&pool, workload, &texts, rows).await,
                }
            }
        }
    })
    .await
}

async fn copy(pool: &PgPool, workload: Workload, texts: &[Texts], rows: std::ops::Range<usize>) -> Result<()> {
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
    let mut connection = pool.acquire().await?;
    let mut copy = connection.copy_in_raw(COPY).await?;
    copy.send(data).await?;
    copy.finish().await?;
    Ok(())
}

async fn unnest_events(pool: &PgPool, workload: Workload, texts: &[Texts], rows: std::ops::Range<usize>) -> Result<()> {
    const INSERT: &str = "INSERT INTO batchsql_suite_events (id,name,email,payload,amount,active,created_at)
         SELECT * FROM unnest($1::bigint[],$2::text[],$3::text[],$4::text[],$5::float8[],$6::boolean[],$7::timestamptz[])
         ON CONFLICT (id) DO NOTHING";
    let events: Vec<_> = rows.map(|n| workload.event(texts, n)).collect();
    sqlx::query(INSERT)
        .bind(events.iter().map(|event| event.id).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.name).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.email).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.payload).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.amount).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.active).collect::<Vec<_>>())
        .bind(events.iter().map(|event| instant(event.created_at)).collect::<Vec<_>>())
        .execute(pool)
        .await?;
    Ok(())
}

async fn unnest_accounts(
    pool: &PgPool,
    workload: Workload,
    texts: &[Texts],
    rows: std::ops::Range<usize>,
) -> Result<()> {
    const UPSERT: &str = "INSERT INTO batchsql_suite_accounts (id,version,owner,note)
         SELECT * FROM unnest($1::bigint[],$2::bigint[],$3::text[],$4::text[])
         ON CONFLICT (id) DO UPDATE SET version=excluded.version,owner=excluded.owner,note=excluded.note";
    let mut accounts: Vec<_> = rows.map(|n| workload.account(texts, n)).collect();
    // Without this the loops deadlock.
    accounts.sort_by_key(|account| account.id);
    sqlx::query(UPSERT)
        .bind(accounts.iter().map(|account| account.id).collect::<Vec<_>>())
        .bind(accounts.iter().map(|account| account.version).collect::<Vec<_>>())
        .bind(accounts.iter().map(|account| account.owner).collect::<Vec<_>>())
        .bind(accounts.iter().map(|account| account.note).collect::<Vec<_>>())
        .execute(pool)
        .await?;
    Ok(())
}

fn instant(time: TimestampTz) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(time.micros_since_epoch()).expect("the suite's rows are of the year 2024")
}
