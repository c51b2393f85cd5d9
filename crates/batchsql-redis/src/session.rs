//! Owns the checks of a client from another connection: whether its server is working for it, and how an interrupted
//! client is ended.
//! Must not know rows or commands of tables.
//!
//! Example: a batch in a cluster was sent on clients 7 and 9 of two nodes. Node 1 answered, node 2 did not, and the
//! batch was abandoned. Only client 9 was interrupted: another connection to node 2, with the same `run_id`, sends
//! `CLIENT KILL ID 9`, and then checks whether it is still listed. Data that the network delivers later reaches a
//! closed socket.

use std::time::Duration;

use batchsql_core::{ErrorClass, SessionEnd, SinkError};

use crate::classify::{connect_error, of_several};
use crate::client::{Client, ClientName, Clients, text};
use crate::cluster::Cluster;
use crate::fan_out::{Task, first_ok, join_all};
use crate::link::Link;
use crate::pool::{Pool, Successor};

/// After this time other servers are queried about one that has not answered.
const SILENT: Duration = Duration::from_secs(1);

/// Pauses between checks for a killed client, in milliseconds.
const LOOKS: [u64; 6] = [0, 2, 10, 50, 200, 400];

/// Ends every client that was interrupted during a batch.
///
/// # Errors
/// A server cannot be queried now.
pub(crate) async fn end(pool: &Pool, cluster: Option<&Cluster>, clients: &Clients) -> Result<SessionEnd, SinkError> {
    let left = clients.left();
    let tasks = left.iter().map(|client| -> Task<'_, _> { Box::pin(end_client(pool, cluster, client)) }).collect();
    let (mut result, mut failure) = (SessionEnd::Ended, None);
    for ended in join_all(tasks).await {
        match ended {
            Ok(SessionEnd::Ended) => {}
            Ok(SessionEnd::Impossible) => result = SessionEnd::Impossible,
            Ok(end) if result == SessionEnd::Ended => result = end,
            Ok(_) => {}
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if result != SessionEnd::Impossible => Err(error),
        _ => Ok(result),
    }
}

async fn end_client(pool: &Pool, cluster: Option<&Cluster>, client: &Client) -> Result<SessionEnd, SinkError> {
    if client.is_passed_on() {
        // Only waiting helps: `late_write_limit`.
        return Ok(SessionEnd::Impossible);
    }
    let Some(name) = &client.name else {
        pool.warn_of_clients();
        return Ok(SessionEnd::Impossible);
    };
    // The second starts while the first has no answer: the pipeline does not wait for the full connect
    // timeout.
    let ways: Vec<Task<'_, _>> = vec![
        Box::pin(async { pool.open(&client.server).await.map(Some) }),
        Box::pin(async {
            tokio::time::sleep(SILENT).await;
            replaced(pool, cluster, client).await
        }),
    ];
    let mut link = match first_ok(ways).await.map_err(of_several)? {
        Some(link) => link,
        None => return Ok(SessionEnd::Ended),
    };
    let ended = end_from(pool, &mut link, name).await;
    if matches!(ended, Ok(SessionEnd::Ended)) {
        client.mark_ended();
    }
    let address = link.client.server.addr().to_string();
    pool.give_back(std::iter::once((address.clone(), link)));
    ended.map_err(|error| connect_error(&error, &address))
}

/// A server to query instead of one that cannot be reached. `None`: that one was replaced, rejoins as a replica, and
/// loses the writes it accepted in the meantime.
///
/// # Errors
/// Neither is known.
async fn replaced(pool: &Pool, cluster: Option<&Cluster>, client: &Client) -> Result<Option<Link>, SinkError> {
    match cluster {
        None => match pool.successor(&client.server).await? {
            Successor::Agreed => Ok(None),
            // It has another run_id, unless it is the same server under another name.
            Successor::Reached(link) => Ok(Some(*link)),
        },
        Some(cluster) if cluster.is_master(pool, &client.server).await? => {
            let text = "the other nodes of the cluster still use a node that cannot be reached";
            Err(SinkError::new(ErrorClass::Transient, text))
        }
        Some(_) => Ok(None),
    }
}

async fn end_from(pool: &Pool, link: &mut Link, name: &ClientName) -> Result<SessionEnd, redis::RedisError> {
    let Some(own) = &link.client.name else {
        pool.warn_of_clients();
        return Ok(SessionEnd::Impossible);
    };
    if own.run_id != name.run_id {
        // It was restarted, or another server replaced it. The new one executes only writes of its own clients, not
        // those that still arrive at the old one.
        return Ok(SessionEnd::Ended);
    }
    let refused = |error: redis::RedisError| match error.code() {
        Some("NOPERM") => {
            pool.warn_of_clients();
            Ok(SessionEnd::Impossible)
        }
        _ => Err(error),
    };
    if let Err(error) = link.ask(redis::cmd("CLIENT").arg("KILL").arg("ID").arg(name.id)).await {
        return refused(error);
    }
    for pause in LOOKS {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let list = match link.ask(redis::cmd("CLIENT").arg("LIST").arg("ID").arg(name.id)).await {
            // Before version 6.2 the command lists all clients only.
            Err(error) if error.code() == Some("ERR") => link.ask(redis::cmd("CLIENT").arg("LIST")).await,
            list => list,
        };
        let shown = format!("id={} ", name.id);
        match list {
            Ok(list) if text(&list).lines().any(|line| line.starts_with(&shown)) => {}
            Ok(_) => return Ok(SessionEnd::Ended),
            Err(error) => return refused(error),
        }
    }
    Ok(SessionEnd::Pending)
}

/// Whether a server has pending work for a client that waits for replies; `None` if that cannot be known.
///
/// # Errors
/// A server cannot be queried now.
pub(crate) async fn is_working(pool: &Pool, clients: &Clients) -> Result<Option<bool>, SinkError> {
    let sending = clients.sending();
    if sending.is_empty() || sending.iter().any(|client| !client.is_named()) {
        return Ok(None);
    }
    let tasks = sending.iter().map(|client| -> Task<'_, _> { Box::pin(is_client_working(pool, client)) }).collect();
    let mut is_known = true;
    for answer in join_all(tasks).await {
        match answer? {
            Some(true) => return Ok(Some(true)),
            Some(false) => {}
            None => is_known = false,
        }
    }
    Ok(is_known.then_some(false))
}

async fn is_client_working(pool: &Pool, client: &Client) -> Result<Option<bool>, SinkError> {
    let Some(name) = &client.name else { return Ok(None) };
    let mut link = pool.open(&client.server).await?;
    let list = match &link.client.name {
        Some(own) if own.run_id == name.run_id => {
            link.ask(redis::cmd("CLIENT").arg("LIST").arg("ID").arg(name.id)).await.map(Some)
        }
        Some(_) => Ok(None),
        None => return Ok(None),
    };
    pool.give_back(std::iter::once((client.server.addr().to_string(), link)));
    match list {
        // The server was restarted and does not know the client.
        Ok(None) => Ok(Some(false)),
        Ok(Some(list)) => Ok(Some(text(&list).lines().any(|line| has_work(line, name.id)))),
        Err(error) if matches!(error.code(), Some("NOPERM" | "ERR")) => Ok(None),
        Err(error) => Err(connect_error(&error, &client.server.addr().to_string())),
    }
}

/// Whether a line of `CLIENT LIST` belongs to the client and shows unprocessed bytes, or activity within the last
/// second. A server that is busy with a command does not answer at all.
fn has_work(line: &str, id: i64) -> bool {
    let fields: Vec<(&str, &str)> = line.split(' ').filter_map(|field| field.split_once('=')).collect();
    let of = |name: &str| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| *value);
    let is_some = |name: &str| of(name).is_some_and(|value| value != "0");
    of("id").and_then(|own| own.parse().ok()) == Some(id)
        && (["qbuf", "obl", "oll"].into_iter().any(is_some)
            || of("idle") == Some("0")
            || of("flags").is_some_and(|flags| flags.contains('b')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_with_bytes_to_handle_has_work() {
        let check = |fields: &str, expected| {
            assert_eq!(has_work(&format!("id=7 addr=127.0.0.1:1 name= {fields}"), 7), expected, "{fields}");
        };
        check("idle=3 flags=N qbuf=0 obl=0 oll=0", false);
        check("idle=0 flags=N qbuf=0 obl=0 oll=0", true);
        check("idle=3 flags=N qbuf=100 obl=0 oll=0", true);
        check("idle=3 flags=N qbuf=0 obl=0 oll=2", true);
        check("idle=3 flags=b qbuf=0 obl=0 oll=0", true);
        assert!(!has_work("id=17 idle=0 flags=N", 7));
    }
}
