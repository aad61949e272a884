//! `LISTEN`: the address on which the api and the workers of `devstack run` listen, and what follows from it: where they can be
//! reached, for which hosts the api answers, and whether the port is free. Nothing is started here.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use crate::error::{Error, Result};

/// Reads an address as a person or a URL writes it: IPv6 with or without brackets.
pub(crate) fn parse(text: &str) -> Result<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| {
        let problem = format!(
            "{text:?} is not an IP address of this machine, such as 127.0.0.1, ::1, 0.0.0.0 (every IPv4 address) or :: (every \
             address); the port is PORT"
        );
        Error::config("LISTEN", problem)
    })
}

/// The URL at which this machine reaches a server that listens on `listen` and `port`.
pub(crate) fn url(listen: IpAddr, port: u16) -> String {
    let address = match listen {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => listen,
    };
    // With the brackets of IPv6.
    format!("http://{}", SocketAddr::new(address, port))
}

/// The value of `ALLOWED_HOSTS`: this machine under its own names, the address of `LISTEN`, and what the user adds. A page of
/// another site that points a name of its own at this machine is refused.
pub(crate) fn allowed_hosts(listen: IpAddr, added: Option<&str>) -> String {
    let listen = (!listen.is_unspecified()).then(|| match listen {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    });
    let own = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
    let mut hosts: Vec<String> = own.into_iter().collect();
    hosts.extend(listen.filter(|host| !hosts.contains(host)));
    hosts.extend(added.map(str::to_owned));
    hosts.join(",")
}

/// Refuses a port on which another program listens, before anything is started. `variable` has the port.
pub(crate) fn check_free(listen: IpAddr, port: u16, variable: &'static str) -> Result<()> {
    let Err(error) = TcpListener::bind((listen, port)) else { return Ok(()) };
    Err(match error.kind() {
        ErrorKind::AddrInUse => Error::config(
            variable,
            format!(
                "{port} is in use by another program: stop that one, or choose another, as in `make run {variable}={}`",
                port.checked_add(1).unwrap_or(8080)
            ),
        ),
        ErrorKind::AddrNotAvailable => Error::config("LISTEN", format!("{listen} is not an address of this machine")),
        _ => Error::config(variable, format!("cannot listen on {}: {error}", SocketAddr::new(listen, port))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_every_address_can_be_reached_from_here() {
        for (listen, expected) in [
            ("127.0.0.1", "http://127.0.0.1:8080"),
            ("0.0.0.0", "http://127.0.0.1:8080"),
            ("::1", "http://[::1]:8080"),
            ("[::1]", "http://[::1]:8080"),
            ("::", "http://[::1]:8080"),
            ("192.168.1.5", "http://192.168.1.5:8080"),
        ] {
            assert_eq!(url(parse(listen).unwrap(), 8080), expected);
        }
        for bad in ["localhost", "127.0.0.1:8080", "[::1]:8080", "eth0"] {
            let message = parse(bad).unwrap_err().to_string();
            assert!(message.starts_with("LISTEN: ") && message.contains("127.0.0.1"), "{message}");
        }
    }

    #[test]
    fn hosts_are_those_of_the_machine_and_what_the_user_adds() {
        let hosts = |listen: &str, added| allowed_hosts(parse(listen).unwrap(), added);
        assert_eq!(hosts("127.0.0.1", None), "localhost,127.0.0.1,[::1]");
        assert_eq!(hosts("::1", None), "localhost,127.0.0.1,[::1]");
        assert_eq!(hosts("0.0.0.0", None), "localhost,127.0.0.1,[::1]");
        assert_eq!(hosts("192.168.1.5", None), "localhost,127.0.0.1,[::1],192.168.1.5");
        assert_eq!(hosts("fd00::5", Some("a.lan,*.b.lan")), "localhost,127.0.0.1,[::1],[fd00::5],a.lan,*.b.lan");
    }

    #[test]
    fn a_taken_port_and_a_foreign_address_are_told_apart() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        let message = check_free(Ipv4Addr::LOCALHOST.into(), port, "PORT").unwrap_err().to_string();
        assert!(message.starts_with(&format!("PORT: {port} is in use")), "{message}");
        // Another address of the machine is another matter: the check is for the one that will be used.
        check_free(Ipv4Addr::new(127, 0, 0, 2).into(), port, "PORT").unwrap();
        // Of the block for documentation, so no machine has it.
        let message = check_free(Ipv4Addr::new(192, 0, 2, 1).into(), port, "PORT").unwrap_err().to_string();
        assert!(message.starts_with("LISTEN: 192.0.2.1 is not an address"), "{message}");
    }
}
