//! Owns the names of the databases: on the command line, in labels, and in the variables with their DSNs.
//! Must not know what the other options are.

use anyhow::Context;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A value of `--db`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DatabaseChoice {
    /// Embedded SQLite; needs no server
    Sqlite,
    /// PostgreSQL
    Postgres,
    /// MySQL or MariaDB
    Mysql,
    /// Redis
    Redis,
    /// Every one of them
    All,
}

/// A database that the suite can run against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatabaseName {
    /// Embedded SQLite; needs no server.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// MySQL or MariaDB.
    Mysql,
    /// Redis.
    Redis,
}

impl DatabaseName {
    /// The name in labels and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
        }
    }

    /// The DSN of its server.
    ///
    /// # Errors
    /// No DSN is set; the message says what to do.
    pub fn needed(self, dsn: &Option<String>) -> anyhow::Result<&str> {
        let variable = match self {
            Self::Sqlite => "SQLITE_DSN",
            Self::Postgres => "POSTGRES_DSN",
            Self::Mysql => "MYSQL_DSN",
            Self::Redis => "REDIS_DSN",
        };
        dsn.as_deref().with_context(|| {
            let name = self.name();
            format!(
                "there is no {name} server to run against; set {variable}, or let cargo xtask integration-test --db \
                 {name} start one"
            )
        })
    }

    /// Every database, in the order they run.
    pub const ALL: [Self; 4] = [Self::Sqlite, Self::Postgres, Self::Mysql, Self::Redis];
}

impl DatabaseChoice {
    /// The databases of a list, each once.
    pub fn names_of(choices: &[Self]) -> Vec<DatabaseName> {
        let mut once = Vec::new();
        for name in choices.iter().flat_map(|choice| choice.names()) {
            if !once.contains(name) {
                once.push(*name);
            }
        }
        once
    }

    fn names(self) -> &'static [DatabaseName] {
        match self {
            Self::Sqlite => &[DatabaseName::Sqlite],
            Self::Postgres => &[DatabaseName::Postgres],
            Self::Mysql => &[DatabaseName::Mysql],
            Self::Redis => &[DatabaseName::Redis],
            Self::All => &DatabaseName::ALL,
        }
    }
}
