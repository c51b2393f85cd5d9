//! Owns the checks that a scraper gets its response soon, however many clients keep connections or send requests.
//! Must not know the content of responses.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use batchsql_prometheus::{PrometheusMetrics, ServerOptions};

use crate::http::{connect, get};

/// Far more than there are slots.
const CROWD: usize = 200;
/// The options have no limit that would end a connection, so a scraper without a slot would wait for an hour. The
/// crowd itself waits for slots, and the machine may be busy.
const SOON: Duration = Duration::from_secs(120);
const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n";

async fn started(options: ServerOptions) -> (PrometheusMetrics, SocketAddr) {
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server_with(options.port(0)).await.unwrap();
    (metrics, address)
}

/// Options whose limits are too long to end any of the connections in time.
fn patient() -> ServerOptions {
    let hour = Duration::from_secs(3_600);
    ServerOptions::new().header_time(hour).answer_time(hour).connection_age(hour)
}

fn answered_soon(address: SocketAddr) {
    for path in ["/metrics", "/health", "/metrics"] {
        let begin = Instant::now();
        assert_eq!(get(address, path).status, 200);
        assert!(begin.elapsed() < SOON, "{path} took {:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn those_who_say_nothing_or_half_of_it_or_do_not_listen() {
    let (metrics, address) = started(patient()).await;
    for case in 0..20_000 {
        metrics.record_real_time_metrics("mysql", &format!("case_{case:0100}"), 1.0, 1.0);
    }
    let said: [&[u8]; 3] = [b"", b"GET /metrics HTT", b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"];
    let crowd: Vec<TcpStream> = (0..CROWD)
        .map(|number| {
            let mut stream = connect(address);
            stream.write_all(said[number % said.len()]).unwrap();
            stream
        })
        .collect();
    let begin = Instant::now();
    assert_eq!(get(address, "/health").status, 200);
    assert!(begin.elapsed() < SOON, "it took {:?}", begin.elapsed());
    drop(crowd);
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn those_who_come_back_before_they_are_idle_too_long() {
    let (metrics, address) = started(patient().max_connections(8)).await;
    let (over, crowd) = crowd(32, address, |stream| {
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n").is_ok() && {
            let alive = matches!(stream.read(&mut [0; 1024]), Ok(1..));
            sleep(Duration::from_millis(500));
            alive
        }
    });
    answered_soon(address);
    over.store(true, Ordering::Relaxed);
    crowd.into_iter().for_each(|member| member.join().unwrap());
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn those_who_ask_without_end() {
    let (metrics, address) = started(patient()).await;
    let requests = REQUEST.repeat(20);
    let (over, crowd) = crowd(60, address, move |stream| {
        stream.write_all(&requests).is_ok() && matches!(stream.read(&mut [0; 1 << 16]), Ok(1..))
    });
    sleep(Duration::from_millis(500));
    answered_soon(address);
    over.store(true, Ordering::Relaxed);
    metrics.stop_server().await.unwrap();
    crowd.into_iter().for_each(|member| member.join().unwrap());
}

type Crowd = (Arc<AtomicBool>, Vec<JoinHandle<()>>);

/// Clients that each repeat an action until the end, and reconnect when their connection is closed.
fn crowd(members: usize, address: SocketAddr, act: impl Fn(&mut TcpStream) -> bool + Clone + Send + 'static) -> Crowd {
    let over = Arc::new(AtomicBool::new(false));
    let member = |_| {
        let (over, act) = (Arc::clone(&over), act.clone());
        spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let Ok(mut stream) = TcpStream::connect(address) else { return };
                stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                while !over.load(Ordering::Relaxed) && act(&mut stream) {}
            }
        })
    };
    let members = (0..members).map(member).collect();
    (over, members)
}
