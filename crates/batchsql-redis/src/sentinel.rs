//! Owns the search for the master by its name, with queries to the sentinels and to the server itself.
//! Must not know rows, or what is written to the master.

use batchsql_core::{ErrorClass, SinkError};
use redis::{ConnectionInfo, Value};
use tokio::time::timeout;

use crate::classify::{connect_error, is_unknown_command, of_several, silent};
use crate::client::text;
use crate::connect::Connector;
use crate::fan_out::{Task, first_ok, stagger_delay};
use crate::link::Link;
use crate::options::Sentinels;

/// The answer of a sentinel: host and port of a master.
pub(crate) type Named = (String, u16);

/// Queries the sentinels, with staggered starts and the one with the number `first` before the others, until one
/// names the master, within the connect timeout. Returns the master and the number of that sentinel.
///
/// # Errors
/// None of them names it; returns the error of one of them.
pub(crate) async fn master(
    connector: &Connector,
    sentinels: &Sentinels,
    first: usize,
) -> Result<(Named, usize), SinkError> {
    let (limit, hosts) = (connector.options.connect_timeout, &sentinels.hosts);
    let tasks = (0..hosts.len()).map(|turn| -> Task<'_, _> {
        let number = first.wrapping_add(turn) % hosts.len();
        Box::pin(async move {
            tokio::time::sleep(stagger_delay(turn, limit)).await;
            ask(connector, &hosts[number], &sentinels.master).await.map(|named| (named, number))
        })
    });
    first_ok(tasks.collect()).await.map_err(of_several)
}

/// The master that one sentinel names.
///
/// # Errors
/// It does not answer within the connect timeout, or knows no such master.
pub(crate) async fn ask(connector: &Connector, host: &ConnectionInfo, master: &str) -> Result<Named, SinkError> {
    let limit = connector.options.connect_timeout;
    let address = host.addr().to_string();
    let mut is_connected = false;
    let asked = timeout(limit, async {
        let mut link = connector.connect_unnamed(host, host.redis_settings()).await?;
        is_connected = true;
        link.ask(redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master)).await
    });
    let reply = match asked.await {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) if is_connected && is_unknown_command(&error) => {
            let text = format!("{address} is no sentinel; name the sentinels in redis+sentinel://, or use redis://");
            return Err(SinkError::with_code(ErrorClass::Schema, "ERR", text));
        }
        Ok(Err(error)) => return Err(connect_error(&error, &format!("sentinel {address}"))),
        Err(_) => return Err(silent(&format!("sentinel {address}"))),
    };
    let named = match &reply {
        Value::Array(parts) => match &parts[..] {
            [host, port] => text(port).parse().ok().map(|port| (text(host).into_owned(), port)),
            _ => None,
        },
        _ => None,
    };
    named.ok_or_else(|| {
        let text = format!("the sentinel at {address} knows no master {master:?}; check the name in the dsn");
        SinkError::new(ErrorClass::Transient, text)
    })
}

/// Checks that the server itself reports that it is the master: the sentinels may not know yet that it no
/// longer is.
///
/// # Errors
/// It is a replica, or does not answer.
pub(crate) async fn check_role(link: &mut Link, address: &str) -> Result<(), SinkError> {
    match link.ask(&redis::cmd("ROLE")).await {
        Ok(Value::Array(role)) if role.first().is_some_and(|role| text(role) != "master") => {
            let text = format!("redis at {address} is named as the master by its sentinels, but is a replica");
            Err(SinkError::new(ErrorClass::Resource, text))
        }
        Ok(_) => Ok(()),
        // Without the right to query, a replica is detected when rows are written.
        Err(error) if matches!(error.code(), Some("NOPERM" | "ERR")) => Ok(()),
        Err(error) => Err(connect_error(&error, address)),
    }
}

/// Whether the server itself reports that it is the master.
pub(crate) async fn is_master(link: &mut Link) -> bool {
    let role = link.ask(&redis::cmd("ROLE")).await;
    matches!(role, Ok(Value::Array(role)) if role.first().is_some_and(|role| text(role) == "master"))
}
