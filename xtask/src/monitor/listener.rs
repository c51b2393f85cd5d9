//! The process that listens on a port of this machine, if it can be found.
//! Must not know why the caller needs it.

use std::process::Command;

use crate::servers::port;

/// Shared with the exporter; as a file, so that xtask does not depend on that crate.
#[path = "../../../crates/batchsql-prometheus/src/listener.rs"]
mod by_kernel;

/// The process that listens on a port of the loopback interface, as `the process name (pid 123)`. `None`: no process,
/// or one of another user.
pub(super) fn of(port: u16) -> Option<String> {
    let known = by_kernel::holder(port::local(port)).map(|process| process.to_string());
    known.or_else(|| if cfg!(target_os = "linux") { None } else { by_lsof(port) })
}

fn by_lsof(port: u16) -> Option<String> {
    let output = Command::new("lsof").args(["-nP", &format!("-iTCP:{port}"), "-sTCP:LISTEN", "-Fpc"]).output().ok()?;
    name_of(&String::from_utf8_lossy(&output.stdout))
}

/// The first process in the output of `lsof -Fpc`: lines `p123` and `cname`.
fn name_of(text: &str) -> Option<String> {
    let field = |letter| text.lines().find_map(|line| line.strip_prefix(letter));
    Some(format!("the process {} (pid {})", field('c')?, field('p')?))
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
            assert!(found.contains(&format!("pid {})", std::process::id())), "{found}");
        }
        drop(listener);
        assert_eq!(of(port), None);
    }

    #[test]
    fn the_output_of_lsof_is_read() {
        assert_eq!(name_of("p42\ncprometheus\nf7\n").as_deref(), Some("the process prometheus (pid 42)"));
        assert_eq!(name_of(""), None);
    }
}
