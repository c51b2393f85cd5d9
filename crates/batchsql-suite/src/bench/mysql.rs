//! Owns the measurement against MySQL and MariaDB: the pipeline, and a loop by hand over the same client, the same
//! table and the same rows: prepared statements of a whole batch.
//! Must not know other databases.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use batchsql::TimestampTz;
use batchsql::mysql::MySqlSink;
use chrono::{DateTime, NaiveDateTime};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::{Executor, MySqlPool};

use super::figures::{Figure, Plan, summarise};
use super::workload::{BATCH, IN_FLIGHT, PRODUCERS, Workload, hand_written, pipeline, rate};
use crate::rows::Texts;

/// Measures the pipeline against a hand-written loop, from the first row to everything committed.
///
/// # Errors
/// The server fails.
pub async fn mysql(plan: Plan, dsn: &str) -> Result<Vec<Figure>> {
    let pool = MySqlPoolOptions::new().max_connections(IN_FLIGHT as u32).min_connections(IN_FLIGHT as u32);
    let pool = pool.connect(dsn).await.context("cannot connect to the server of MYSQL_DSN")?;
    let sink = MySqlSink::connect(dsn).await?;
    let mut figures = Vec::new();
    for workload in [Workload::Insert, Workload::Ignore, Workload::Update] {
        let texts = workload.texts(plan.rows);
        let mut rounds = Vec::new();
        for round in 0..plan.rounds {
            eprintln!("mysql, {}, round {} of {}", workload.name(), round + 1, plan.rounds);
            create(&pool, workload).await?;
            let by_hand = rate(plan.rows, by_hand(workload, &pool, &texts).await?);
            check(&pool, workload, plan.rows).await?;
            create(&pool, workload).await?;
            let ours = rate(plan.rows, pipeline(sink.clone(), workload, &texts).await?);
            check(&pool, workload, plan.rows).await?;
            rounds.push(vec![by_hand, ours]);
        }
        let group = format!("mysql, {}, batch {BATCH}, {IN_FLIGHT} in flight", workload.name());
        let names = ["hand-written prepared multi-VALUES loop", &format!("batchsql, {PRODUCERS} producers")];
        figures.extend(summarise(&group, &names, &rounds));
    }
    clean_up(&pool).await?;
    Ok(figures)
}

async fn clean_up(pool: &MySqlPool) -> Result<()> {
    pool.execute("DROP TABLE IF EXISTS batchsql_suite_events, batchsql_suite_accounts").await?;
    Ok(())
}

async fn create(pool: &MySqlPool, workload: Workload) -> Result<()> {
    clean_up(pool).await?;
    pool.execute(match workload {
        Workload::Insert | Workload::Ignore => {
            "CREATE TABLE batchsql_suite_events (
                 id BIGINT PRIMARY KEY, name TEXT NOT NULL, email VARCHAR(255) NOT NULL, payload TEXT NOT NULL,
                 amount DOUBLE NOT NULL, active BOOLEAN NOT NULL, created_at DATETIME(6) NOT NULL,
                 INDEX (email), INDEX (created_at)) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4"
        }
        Workload::Update => {
            "CREATE TABLE batchsql_suite_accounts (
                 id BIGINT PRIMARY KEY, version BIGINT NOT NULL, owner TEXT NOT NULL, note TEXT)
             ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4"
        }
    })
    .await?;
    Ok(())
}

async fn check(pool: &MySqlPool, workload: Workload, rows: usize) -> Result<()> {
    let table = workload.table();
    let found: i64 = sqlx::query_scalar(&format!("SELECT count(*) FROM {table}")).fetch_one(pool).await?;
    let expected = workload.rows_afterwards(rows);
    anyhow::ensure!(found == expected as i64, "{table} has {found} rows instead of {expected}");
    Ok(())
}

fn statement(workload: Workload, rows: usize) -> String {
    let (head, row, tail) = match workload {
        Workload::Insert | Workload::Ignore => (
            "INSERT INTO batchsql_suite_events (id,name,email,payload,amount,active,created_at) VALUES ",
            "(?,?,?,?,?,?,?)",
            if workload == Workload::Ignore { " ON DUPLICATE KEY UPDATE id=id" } else { "" },
        ),
        Workload::Update => (
            "INSERT INTO batchsql_suite_accounts (id,version,owner,note) VALUES ",
            "(?,?,?,?)",
            " ON DUPLICATE KEY UPDATE version=VALUES(version),owner=VALUES(owner),note=VALUES(note)",
        ),
    };
    format!("{head}{}{tail}", vec![row; rows].join(","))
}

async fn by_hand(workload: Workload, pool: &MySqlPool, texts: &Arc<Vec<Texts>>) -> Result<Duration> {
    let full: Arc<str> = statement(workload, BATCH).into();
    hand_written(texts.len(), || {
        let (pool, texts, full) = (pool.clone(), Arc::clone(texts), Arc::clone(&full));
        move |rows| {
            let (pool, texts, full) = (pool.clone(), Arc::clone(&texts), Arc::clone(&full));
            async move {
                let sql = if rows.len() == BATCH { full } else { statement(workload, rows.len()).into() };
                let mut query = sqlx::query(&sql);
                match workload {
                    Workload::Insert | Workload::Ignore => {
                        for event in rows.map(|n| workload.event(&texts, n)) {
                            query = query.bind(event.id).bind(event.name).bind(event.email).bind(event.payload);
                            query = query.bind(event.amount).bind(event.active).bind(instant(event.created_at));
                        }
                    }
                    Workload::Update => {
                        let mut accounts: Vec<_> = rows.map(|n| workload.account(&texts, n)).collect();
                        // Without this the loops deadlock.
                        accounts.sort_by_key(|account| account.id);
                        for account in accounts {
                            query = query.bind(account.id).bind(account.version).bind(account.owner).bind(account.note);
                        }
                    }
                }
                query.execute(&pool).await?;
                Ok(())
            }
        }
    })
    .await
}

fn instant(time: TimestampTz) -> NaiveDateTime {
    let instant = DateTime::from_timestamp_micros(time.micros_since_epoch());
    instant.expect("the suite's rows are of the year 2024").naive_utc()
}
