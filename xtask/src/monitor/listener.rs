//! Who listens on a port of this machine, where that can be known.
//! Must not know why somebody asks.

use std::{fs, process::Command};

/// The process that listens on a TCP port, as `name (pid 123)`. None: nobody, or a process of another user.
pub(super) fn of(port: u16) -> Option<String> {
    if cfg!(target_os = "linux") { by_proc(port) } else { by_lsof(port) }
}

/// Linux: the sockets that listen have inodes, and processes have these open.
fn by_proc(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let sockets: Vec<_> = tables.iter().flat_map(|table| table.lines().filter_map(|line| inode(line, port))).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let mut targets = files.filter_map(|file| fs::read_link(file.path()).ok());
        if targets.any(|target| sockets.iter().any(|socket| target.to_str() == Some(socket))) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

/// The link to the socket of a line of `/proc/net/tcp`, when it listens on the port.
fn inode(line: &str, port: u16) -> Option<String> {
    const LISTENS: &str = "0A";

    let words: Vec<_> = line.split_whitespace().collect();
    let (_, local) = words.get(1)?.rsplit_once(':')?;
    let listens = words.get(3) == Some(&LISTENS) && u16::from_str_radix(local, 16) == Ok(port);
    listens.then(|| words.get(9).map(|inode| format!("socket:[{inode}]")))?
}

fn by_lsof(port: u16) -> Option<String> {
    let output = Command::new("lsof").args(["-nP", &format!("-iTCP:{port}"), "-sTCP:LISTEN", "-Fpc"]).output().ok()?;
    name_of(&String::from_utf8_lossy(&output.stdout))
}

/// The first process that `lsof -Fpc` tells: lines `p123` and `cname`.
fn name_of(text: &str) -> Option<String> {
    let field = |letter| text.lines().find_map(|line| line.strip_prefix(letter));
    Some(format!("{} (pid {})", field('c')?, field('p')?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn this_process_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if cfg!(target_os = "linux") || Command::new("lsof").arg("-v").output().is_ok() {
            let found = of(port).expect("this process listens");
            assert!(found.contains(&format!("(pid {})", std::process::id())), "{found}");
        }
        drop(listener);
        assert_eq!(of(port), None);
    }

    #[test]
    fn the_output_of_lsof_is_read() {
        assert_eq!(name_of("p42\ncprometheus\nf7\n").as_deref(), Some("prometheus (pid 42)"));
        assert_eq!(name_of(""), None);
    }
}
