//! Owns the address of a DSN: login, database, and one host or several with their ports.
//! Must not know the other parameters, or how to connect to a server.

use batchsql_core::OpenError;

/// The part between `://` and `?`.
pub(crate) struct Address<'a> {
    /// User and password with the `@`.
    pub(crate) login: &'a str,
    pub(crate) hosts: &'a str,
    /// With its `/`.
    pub(crate) database: &'a str,
}

impl<'a> Address<'a> {
    pub(crate) fn of(address: &'a str) -> Result<Self, OpenError> {
        let (login, rest) = address.rfind('@').map_or(("", address), |at| address.split_at(at + 1));
        let (hosts, database) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if hosts.split(',').any(str::is_empty) && hosts.contains(',') {
            return Err(OpenError::invalid_options("a host in the postgresql dsn is empty; write host:port,host:port"));
        }
        Ok(Self { login, hosts, database })
    }

    /// The address with one host instead of several.
    pub(crate) fn first(&self) -> String {
        let host = self.hosts.split(',').next().unwrap_or_default();
        // The client cannot unset a folder for the next host, so the folder is set later.
        let host = if host.len() < self.hosts.len() { "localhost" } else { host };
        format!("{}{host}{}", self.login, self.database)
    }
}

/// The servers, if there are several: in the address, or as `host=a,b&port=1,2`. One host and port remain in the
/// parameters. `default_ports`: one, or one for each host.
pub(crate) fn servers(
    address: &Address<'_>,
    foreign: &mut [(&str, &str)],
    default_ports: &str,
) -> Result<Vec<(String, u16)>, OpenError> {
    let wrong = || {
        OpenError::invalid_options(
            "a port in the postgresql dsn is not a number up to 65535, or there are more than hosts",
        )
    };
    let value = |name: &str| foreign.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
    let mut ports: Vec<&str> = value("port").unwrap_or(default_ports).split(',').collect();
    let hosts: Vec<(&str, Option<&str>)> = if address.hosts.contains(',') {
        let split = |host: &'_ str| match host.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => port.len() + 1,
            _ => 0,
        };
        let hosts = address.hosts.split(',').map(|host| host.split_at(host.len() - split(host)));
        hosts.map(|(host, port)| (host, port.strip_prefix(':'))).collect()
    } else if let Some(hosts) = value("host").filter(|hosts| hosts.contains(',')) {
        hosts.split(',').map(|host| (host, None)).collect()
    } else {
        return Ok(Vec::new());
    };
    if ports.len() == 1 {
        ports = vec![ports[0]; hosts.len()];
    }
    if ports.len() != hosts.len() {
        return Err(wrong());
    }
    for (name, value) in foreign.iter_mut() {
        match *name {
            "host" => *value = "localhost",
            "port" => *value = value.split(',').next().unwrap_or_default(),
            _ => {}
        }
    }
    let hosts = hosts.into_iter().zip(ports).map(|((host, port), default)| {
        let host = host.trim_start_matches('[').trim_end_matches(']').replace("%2F", "/").replace("%2f", "/");
        Ok((host, port.unwrap_or(default).parse().map_err(|_| wrong())?))
    });
    hosts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_without_a_port_have_the_default_one() {
        let with_default = |hosts: &str, default| servers(&Address::of(hosts).unwrap(), &mut [], default);
        let of = |ports: [u16; 2]| vec![("a".to_owned(), ports[0]), ("b".to_owned(), ports[1])];
        assert_eq!(with_default("a,b:9", "7").unwrap(), of([7, 9]));
        assert_eq!(with_default("a,b", "7,8").unwrap(), of([7, 8]));
        assert!(with_default("a,b", "x").is_err() && with_default("a,b", "1,2,3").is_err());
    }
}
