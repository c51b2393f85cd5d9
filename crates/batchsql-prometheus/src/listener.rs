//! Owns the search for the process that listens on an address, where the system shows it: its name and its id.
//! Must not know why the caller needs it, and never fails: it only adds a detail to another error message.

use std::fmt;
use std::net::SocketAddr;

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    name: String,
    id: u32,
}

/// The process that listens on the address, or that prevents binding it. `None` if unknown: on systems other than
/// Linux, and for processes of other users.
pub(crate) fn holder(address: SocketAddr) -> Option<Process> {
    #[cfg(target_os = "linux")]
    return linux::holder(address);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = address;
        None
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id } = self;
        if *id == std::process::id() {
            return write!(f, "this process itself ({name}, pid {id})");
        }
        write!(f, "the process {name} (pid {id})")
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    use super::Process;

    /// The state of a listening socket in the tables of the kernel.
    const LISTEN: &str = "0A";
    /// Limit for a name in a message; control characters are removed from it.
    const MAX_NAME: usize = 64;

    pub(super) fn holder(address: SocketAddr) -> Option<Process> {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        let tables = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
        let mut inodes = tables.iter().flat_map(|table| table.lines()).filter_map(|line| inode(line, address));
        owner(&format!("socket:[{}]", inodes.next()?))
    }

    /// The inode of the socket of a line, if it listens on `wanted`.
    pub(super) fn inode(line: &str, wanted: SocketAddr) -> Option<u64> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (address, port) = local.split_once(':')?;
        let address = parse(address)?;
        let overlaps =
            address == wanted.ip().to_canonical() || address.is_unspecified() || wanted.ip().is_unspecified();
        let same_port = u16::from_str_radix(port, 16).ok()? == wanted.port();
        (*state == LISTEN && same_port && overlaps).then(|| inode.parse().ok())?
    }

    /// Each 32 bits are written as a number in the byte order of this machine.
    pub(super) fn parse(hex: &str) -> Option<IpAddr> {
        let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
        match hex.len() {
            8 => Some(Ipv4Addr::from(word(0)?).into()),
            32 => {
                let words = [word(0)?, word(8)?, word(16)?, word(24)?];
                let bytes: [u8; 16] = words.concat().try_into().ok()?;
                Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
            }
            _ => None,
        }
    }

    fn owner(socket: &str) -> Option<Process> {
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let numbered = processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
        for (id, path) in numbered {
            // Files of other users' processes are not shown.
            let Ok(open) = fs::read_dir(path.join("fd")) else { continue };
            let holds = |file: fs::DirEntry| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == socket);
            if open.flatten().any(holds) {
                let name = fs::read_to_string(path.join("comm")).ok()?;
                let name = name.trim_end().chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
                return Some(Process { name, id });
            }
        }
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn who_listens_is_found_on_each_kind_of_address() {
        for own in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            // A machine may have no IPv6.
            let Ok(listener) = TcpListener::bind(own) else { continue };
            let port = listener.local_addr().unwrap().port();
            let wanted = if own.starts_with("[::1]") { "::1" } else { "127.0.0.1" };
            let found = holder(SocketAddr::new(wanted.parse().unwrap(), port)).unwrap_or_else(|| panic!("{own}"));
            assert_eq!(found.id, std::process::id(), "{own}");
            assert!(!found.name.is_empty());
            assert!(found.to_string().starts_with("this process itself ("), "{found}");
            drop(listener);
            assert_eq!(holder(SocketAddr::new(wanted.parse().unwrap(), port)), None, "{own}");
        }
    }

    #[test]
    fn lines_that_cannot_be_read_are_left_out() {
        let address = "127.0.0.1:9090".parse().unwrap();
        let line =
            "   0: 0100007F:2382 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 4711 1 0 100 0 0 10 0";
        if cfg!(target_endian = "little") {
            assert_eq!(linux::inode(line, address), Some(4711));
            assert_eq!(linux::inode(line, "127.0.0.2:9090".parse().unwrap()), None, "another address");
            assert_eq!(linux::inode(line, "0.0.0.0:9090".parse().unwrap()), Some(4711), "all of them");
        }
        assert_eq!(linux::inode(&line.replace(" 0A ", " 01 "), address), None, "a connection does not listen");
        assert_eq!(linux::inode(&line.replace("2382", "2383"), address), None, "another port");
        for broken in
            ["", "sl local_address", "0: 0100007F 0 0A", "0: zz:2382 x 0A x x x x x 1", "0: é:é x 0A x x x x x 1"]
        {
            assert_eq!(linux::inode(broken, address), None, "{broken}");
        }
    }

    #[test]
    fn another_process_is_told_apart() {
        let other = Process { name: "prometheus".to_owned(), id: 0 };
        assert_eq!(other.to_string(), "the process prometheus (pid 0)");
    }
}
