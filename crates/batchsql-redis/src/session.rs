//! Owns how a client that was left in the middle of a batch is ended from another connection.
//! Must not know rows or commands of tables.
//!
//! Example: a batch in a cluster was sent on clients 7 and 9 of two nodes. Node 1 answered, node 2 did not, and the
//! batch was given up. Only client 9 was left in the middle: from another connection to node 2, of the same `run_id`,
//! `CLIENT KILL ID 9`, and then a look whether it is still listed. What the network delivers later finds a closed
//! socket.

use std::time::Duration;

use batchsql_core::{SessionEnd, SinkError};

use crate::classify::connect_error;
use crate::client::{Client, ClientName, Clients, text};
use crate::cluster::Cluster;
use crate::fan_out::{Task, join_all};
use crate::link::{Link, Pool};

/// Pauses between two looks for a client that was killed.
const LOOKS: [u64; 6] = [0, 2, 10, 50, 200, 400];

/// Ends every client that was left in the middle.
///
/// # Errors
/// A server cannot be asked now.
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
    let Some(name) = &client.name else {
        pool.warn_of_clients();
        return Ok(SessionEnd::Impossible);
    };
    let mut link = match (pool.open(&client.server).await, cluster) {
        (Ok(link), _) => link,
        (Err(error), None) => return Err(error),
        // A node whose slots went to another one takes part again as its replica, and loses what it took meanwhile.
        (Err(error), Some(cluster)) => {
            return if cluster.is_master(pool, &client.server).await? { Err(error) } else { Ok(SessionEnd::Ended) };
        }
    };
    let ended = end_from(pool, &mut link, name).await;
    if matches!(ended, Ok(SessionEnd::Ended)) {
        client.mark_ended();
    }
    pool.give_back(std::iter::once((client.server.addr().to_string(), link)));
    ended.map_err(|error| connect_error(&error, &client.server.addr().to_string()))
}

async fn end_from(pool: &Pool, link: &mut Link, name: &ClientName) -> Result<SessionEnd, redis::RedisError> {
    let Some(own) = &link.client.name else {
        pool.warn_of_clients();
        return Ok(SessionEnd::Impossible);
    };
    if own.run_id != name.run_id {
        // It was started again, or another server has its place. That one takes writes of its own clients only, not
        // those that the old one still gets.
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
            // Before version 6.2 it lists all clients or none.
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
