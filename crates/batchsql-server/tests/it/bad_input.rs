//! Owns what hostile or broken clients and files send: nothing grows, and no row is lost that was accepted.
//! Must not know how limits are configured beyond the options that it sets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::client::{JSON, NDJSON, begin, chunk, post, read_rows};
use crate::http_limits::{config, place};
use crate::program::{LONG, Place, Running, peak_memory};

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// 10,000, or as many as this process may have open.
fn connections() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: limit.maximum, ..limit },
    )
    .unwrap();
    // Files of other tests in this process are open, too.
    usize::try_from((limit.maximum.unwrap_or(u64::MAX) / 2).min(10_000)).unwrap()
}

#[test]
fn ten_thousand_connections_cost_little_memory_and_no_row() {
    const THREADS: usize = 10;
    let place = place();
    // The number of connections that are served at once is the default.
    place.write("b.toml", config(&place, "limits = { header_time = \"2s\" }\n"));
    // With the limit of open files that many systems have.
    let run = place.command(&["run", "b.toml"]);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -S -n 1024 && exec \"$0\" run b.toml"])
        .arg(run.get_program())
        .current_dir(place.folder());
    let program = Running::start(shell);
    let at = program.address();
    assert_eq!(post(at, "orders/rows", &[NDJSON], "{\"id\":0}\n").status, 200);
    let before = program.peak_memory();
    let connections = connections();
    println!("{connections} connections");
    // Each sends the begin of a request and no more, or nothing at all.
    let idle = |at: SocketAddr| {
        let connect = |number| {
            let mut stream = TcpStream::connect(at).unwrap();
            if number % 2 == 0 {
                let _ = stream.write_all(b"POST /v1/tables/orders/rows HTTP/1.1\r\nHost: te");
            }
            stream
        };
        (0..connections / THREADS).map(connect).collect::<Vec<_>>()
    };
    let mut accepted = 0;
    let streams: Vec<TcpStream> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| idle(at))).collect();
        // Those that send rows are served meanwhile.
        while threads.iter().any(|thread| !thread.is_finished()) {
            accepted += u64::from(post(at, "orders/rows", &[NDJSON], "{\"id\":1}\n").status == 200);
        }
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(post(at, "orders/rows", &[NDJSON], "{\"id\":1}\n").status, 200);
    for mut stream in streams {
        stream.set_read_timeout(Some(LONG)).unwrap();
        let end = std::iter::repeat_with(|| stream.read(&mut [0; 1000])).find(|read| !matches!(read, Ok(1..)));
        assert!(
            !matches!(&end, Some(Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock),
            "it was not closed"
        );
    }
    let grown = program.peak_memory() - before;
    assert!(grown < 96 << 20, "it has grown by {} MiB", grown >> 20);
    let (code, log) = program.stop();
    assert!(code == 0 && !log.contains("cannot be accepted"), "{log}");
    assert_eq!(place.number("SELECT count(*) FROM orders") as u64, accepted + 2);
}

#[test]
fn bytes_that_are_no_text_cost_their_lines_only() {
    let place = place();
    let program = place.start(&config(&place, ""));
    let at = program.address();
    let body = b"{\"id\":1}\n\xff\xfe\x00\x01\n{\"id\":2,\"note\":\"\xff\"}\n{\"id\":3,\"note\":\"\xc3\xa4\"}\n";
    let response = post(at, "orders/rows?wait=written", &[NDJSON], body);
    let lines: Vec<_> =
        response.json()["rejections"].as_array().unwrap().iter().map(|one| one["line"].clone()).collect();
    assert_eq!(
        (response.status, response.number("accepted"), lines),
        (200, 2, vec![json!(2), json!(3)]),
        "{response:?}"
    );
    // The elements of an array, too.
    let body = b"[{\"id\":4}, {\"id\":5,\"note\":\"\xff\"}, {\"id\":6}]";
    let response = post(at, "orders/rows?wait=written", &[JSON], body);
    assert_eq!((response.status, response.number("accepted"), response.number("refused")), (200, 2, 1), "{response:?}");
    // No row at all.
    let response = post(at, "orders/rows", &[NDJSON], [0xff; 1000]);
    assert_eq!((response.status, response.number("accepted"), response.number("refused")), (200, 0, 1), "{response:?}");
    let response = post(at, "orders/rows", &[JSON], [0xff; 1000]);
    assert_eq!((response.status, response.number("accepted")), (400, 0), "{response:?}");
    program.stop();
    assert_eq!(place.number("SELECT count(*) FROM orders WHERE id IN (1, 3, 4, 6)"), 4);
    assert_eq!(place.number("SELECT count(*) FROM orders"), 4);
}

#[test]
fn a_body_that_never_ends_is_ended() {
    let place = place();
    let limits = "limits = { body_time = \"2s\", body_pause = \"1m\" }\n";
    let program = place.start(&config(&place, limits));
    let mut body = begin(program.address(), "POST", "/v1/tables/orders/rows", &[NDJSON], None);
    chunk(&mut body, b"{\"id\":1}\n").unwrap();
    // A byte again and again, until it is closed.
    body.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 1000];
    loop {
        let _ = chunk(&mut body, b" ");
        match body.read(&mut part) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let response = read_rows(answer.as_slice());
    assert!(response.status == 408 && response.error().contains("http.limits.body_time"), "{response:?}");
    assert_eq!((response.number("accepted"), response.number("next_line")), (1, 2), "{response:?}");
    program.stop();
    assert_eq!(place.number("SELECT count(*) FROM orders"), 1);
}

#[test]
fn a_bomb_in_zstd_is_refused_without_growth() {
    let place = place();
    let program = place.start(&config(&place, "limits = { decompressed = \"24MiB\" }\n"));
    let at = program.address();
    assert_eq!(post(at, "orders/rows", &[NDJSON], "{\"id\":1}\n").status, 200);
    let before = program.peak_memory();
    // 400 MB in frames of 4 MiB.
    let bomb = zstd(&vec![b'\n'; 4 << 20]).repeat(100);
    assert!(bomb.len() < 2 << 20);
    let response = post(at, "orders/rows", &[NDJSON, ("Content-Encoding", "zstd")], &bomb);
    assert!(response.status == 413 && response.error().contains("http.limits.decompressed"), "{response:?}");
    let grown = program.peak_memory() - before;
    assert!(grown < 48 << 20, "it has grown by {} MiB", grown >> 20);
    program.stop();
    assert_eq!(place.number("SELECT count(*) FROM orders"), 1);
}

/// Runs `load` of one file, and returns its exit code, its output and its memory at most.
fn load(place: &Place, file: &str) -> (i32, String, u64) {
    let dsn = format!("sqlite:{}", place.path("a.db").display());
    let mut command = place.command(&["load", file, "--database", &dsn, "--table", "orders"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = peak_memory(child.id()).unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    assert!(peak > 0, "its memory was never read");
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned(), peak)
}

#[test]
fn files_with_endless_lines_are_loaded_without_growth() {
    let place = place();
    // A line of 100 MB between good ones, plain and packed.
    let line = |file: &mut dyn Write| {
        file.write_all(b"{\"id\":1}\n{\"id\":2,\"note\":\"").unwrap();
        (0..100).for_each(|_| file.write_all(&[b'x'; 1 << 20]).unwrap());
        file.write_all(b"\"}\n{\"id\":3}\n").unwrap();
    };
    line(&mut std::fs::File::create(place.path("a.ndjson")).unwrap());
    let file = std::fs::File::create(place.path("b.ndjson.gz")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    line(&mut packed);
    packed.finish().unwrap();
    for file in ["a.ndjson", "b.ndjson.gz"] {
        let before = place.number("SELECT count(*) FROM orders");
        let (code, out, peak) = load(&place, file);
        assert_eq!(code, 1, "{out}");
        assert!(out.contains("3 records, 2 written, 1 rejected"), "{out}");
        assert!(peak < 160 << 20, "{file}: it has grown to {} MiB", peak >> 20);
        assert_eq!(place.number("SELECT count(*) FROM orders WHERE id IN (1, 3)") - before, 2);
    }
}
