//! SRV records (RFC 2782), from the name servers of this host.
//!
//! getaddrinfo(3) does not return SRV records. A resolver library adds a dozen crates for what the name server does
//! anyway. So [`lookup`] sends a single recursive query over UDP, and over TCP if the answer does not fit, to the name
//! servers in turn. Each has a deadline, and the largest answer is that of DNS, 64 KiB.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::secret_file::{FileError, read_public};
use crate::model::random_fraction;

/// File with the name servers of this host.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Largest number of name servers that are asked, as in the C library (resolv.conf(5), MAXNS).
const SERVERS_MAX: usize = 3;

/// Port of name servers.
const PORT: u16 = 53;

/// Deadline of one name server, over UDP and TCP together.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest label of a name, in bytes (RFC 1035 §2.3.4).
const LABEL_MAX_BYTES: usize = 63;

/// Largest answer over UDP, in bytes.
const UDP_MAX_BYTES: usize = 4096;

/// Host and port of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceHost {
    /// Name of the host, without a final dot.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Why the hosts of a service were not found.
#[derive(Debug, thiserror::Error)]
pub enum SrvError {
    /// The name is too long, or a label of it is empty or too long.
    #[error("it is not a DNS name, expected one such as _targetwatch._tcp.example.com")]
    Name,
    /// The file of name servers cannot be read.
    #[error("{0}")]
    ResolvConf(#[from] FileError),
    /// The name does not exist, or it has no such records.
    #[error("it has no SRV records")]
    NoRecords,
    /// No name server answered the query.
    #[error("no name server answered: {0}")]
    NoAnswer(String),
}

/// What a name server answered.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Hosts(Vec<ServiceHost>),
    /// The answer does not fit into a datagram.
    Truncated,
    NoSuchName,
    /// The server cannot or will not answer.
    Failed(String),
}

/// Looks up the hosts of a service, in the order of their names. `server` is asked instead of the name servers of this
/// host.
///
/// # Errors
/// [`SrvError`] when the name has no SRV records, or when no name server answers.
pub async fn lookup(name: &str, server: Option<SocketAddr>) -> Result<Vec<ServiceHost>, SrvError> {
    let servers = match server {
        Some(server) => vec![server],
        None => servers(&String::from_utf8_lossy(&read_public(Path::new(RESOLV_CONF)).await?)),
    };
    ask(name, &servers, SERVER_TIMEOUT).await
}

/// Returns the name servers of resolv.conf(5). Without any, it is the one on this host, as in the C library.
fn servers(text: &str) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| address(words.next()?)).flatten()
    });
    let servers: Vec<SocketAddr> = addresses.take(SERVERS_MAX).collect();
    if servers.is_empty() { vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))] } else { servers }
}

/// Parses an address of a name server, which for a link-local one has an interface: `fe80::1%2`. An interface that is
/// given by its name is not supported.
fn address(text: &str) -> Option<SocketAddr> {
    match text.split_once('%') {
        None => Some(SocketAddr::from((text.parse::<IpAddr>().ok()?, PORT))),
        Some((address, interface)) => {
            let (address, interface) = (address.parse::<Ipv6Addr>().ok()?, interface.parse().ok()?);
            Some(std::net::SocketAddrV6::new(address, PORT, 0, interface).into())
        }
    }
}

/// Asks name servers until one answers.
async fn ask(name: &str, servers: &[SocketAddr], deadline: Duration) -> Result<Vec<ServiceHost>, SrvError> {
    let absolute = name.strip_suffix('.').unwrap_or(name);
    let are_labels = absolute.split('.').all(|label| (1..=LABEL_MAX_BYTES).contains(&label.len()));
    let question = Name::new(absolute).ok().filter(|_| are_labels).ok_or(SrvError::Name)?;
    let question = Question::new(question, QTYPE::TYPE(TYPE::SRV), QCLASS::CLASS(CLASS::IN), false);
    let mut problem = String::new();
    for server in servers {
        match timeout(deadline, ask_one(&question, *server)).await {
            Ok(Ok(Reply::Hosts(mut hosts))) if !hosts.is_empty() => {
                hosts.sort();
                hosts.dedup();
                return Ok(hosts);
            }
            Ok(Ok(Reply::Hosts(_) | Reply::NoSuchName)) => return Err(SrvError::NoRecords),
            Ok(Ok(Reply::Failed(why))) => problem = format!("{server} {why}"),
            Ok(Ok(Reply::Truncated)) => problem = format!("{server} truncates its answers"),
            Ok(Err(error)) => problem = format!("{server}: {error}"),
            Err(_) => problem = format!("{server} was silent for {} ms", deadline.as_millis()),
        }
    }
    Err(SrvError::NoAnswer(problem))
}

async fn ask_one(question: &Question<'_>, server: SocketAddr) -> io::Result<Reply> {
    // An attacker must not be able to guess it (RFC 5452 §4.5).
    let id = (random_fraction() * f64::from(u16::MAX)) as u16;
    let mut query = Packet::new_query(id);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    query.questions.push(question.clone());
    let query = query.build_bytes_vec().map_err(io::Error::other)?;
    match over_udp(&query, id, question, server).await? {
        Reply::Truncated => over_tcp(&query, id, question, server).await,
        reply => Ok(reply),
    }
}

async fn over_udp(query: &[u8], id: u16, question: &Question<'_>, server: SocketAddr) -> io::Result<Reply> {
    let local: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((local, 0)).await?;
    // The kernel then drops datagrams of other senders.
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut datagram = vec![0; UDP_MAX_BYTES];
    loop {
        let length = socket.recv(&mut datagram).await?;
        // A late answer to another query, or a forged one, is ignored.
        if let Some(reply) = reply(&datagram[..length], id, question) {
            return Ok(reply);
        }
    }
}

async fn over_tcp(query: &[u8], id: u16, question: &Question<'_>, server: SocketAddr) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    reply(&message, id, question).ok_or_else(|| io::Error::other("it sent something other than the answer"))
}

/// Decodes a message. `None` if it is not the answer to the question.
fn reply(message: &[u8], id: u16, question: &Question<'_>) -> Option<Reply> {
    let packet = Packet::parse(message).ok()?;
    let is_answer = packet.id() == id && packet.has_flags(PacketFlag::RESPONSE);
    if !is_answer || packet.questions.first().is_none_or(|asked| asked.qname != question.qname) {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Reply::Truncated);
    }
    Some(match packet.rcode() {
        RCODE::NoError => Reply::Hosts(packet.answers.iter().filter_map(|record| host(&record.rdata)).collect()),
        RCODE::NameError => Reply::NoSuchName,
        code => Reply::Failed(format!("answers with {code:?}")),
    })
}

/// Returns the host of a record. A target of `.` says that there is none (RFC 2782).
fn host(data: &RData<'_>) -> Option<ServiceHost> {
    match data {
        RData::SRV(record) => {
            let host = record.target.to_string();
            (!host.is_empty()).then_some(ServiceHost { host, port: record.port })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::SRV;
    use tokio::net::TcpListener;

    use super::*;

    const SERVICE: &str = "_targetwatch._tcp.example.com";

    /// Deadline of a server that does not answer.
    const SHORT: Duration = Duration::from_millis(100);

    const LONG: Duration = Duration::from_secs(10);

    /// How a name server behaves.
    #[derive(Clone, Copy, PartialEq)]
    enum Behaviour {
        Answers,
        /// Sends messages that are not the answer first.
        AnswersAfterForgeries,
        AnswersOverTcpOnly,
        Refuses,
        DoesNotKnowTheName,
        IsSilent,
    }

    /// Starts a name server with these hosts, and returns its address.
    async fn name_server(behaviour: Behaviour, hosts: &'static [(&str, u16)]) -> SocketAddr {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = tcp.local_addr().expect("its address");
        let udp = UdpSocket::bind(address).await.expect("bound");
        tokio::spawn(async move {
            let mut query = [0; 512];
            loop {
                let (length, client) = udp.recv_from(&mut query).await.expect("a query");
                let query = &query[..length];
                if behaviour == Behaviour::AnswersAfterForgeries {
                    for forged in [b"\0".to_vec(), query.to_vec(), answer(query, 1, behaviour, hosts)] {
                        udp.send_to(&forged, client).await.expect("sent");
                    }
                }
                if behaviour != Behaviour::IsSilent {
                    udp.send_to(&answer(query, 0, behaviour, hosts), client).await.expect("sent");
                }
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.expect("accepted");
                let mut query = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
                stream.read_exact(&mut query).await.expect("a query");
                let answer = answer(&query, 0, Behaviour::Answers, hosts);
                stream.write_u16(answer.len() as u16).await.expect("sent");
                stream.write_all(&answer).await.expect("sent");
            }
        });
        address
    }

    /// The answer to a query, with another id than the query if `shift` is not 0.
    fn answer(query: &[u8], shift: u16, behaviour: Behaviour, hosts: &[(&str, u16)]) -> Vec<u8> {
        let query = Packet::parse(query).expect("a query");
        assert!(query.has_flags(PacketFlag::RECURSION_DESIRED));
        let mut answer = Packet::new_reply(query.id().wrapping_add(shift));
        answer.questions.clone_from(&query.questions);
        match behaviour {
            Behaviour::AnswersOverTcpOnly => answer.set_flags(PacketFlag::TRUNCATION),
            Behaviour::Refuses => *answer.rcode_mut() = RCODE::Refused,
            Behaviour::DoesNotKnowTheName => *answer.rcode_mut() = RCODE::NameError,
            _ => {
                for (host, port) in hosts {
                    let target = Name::new_unchecked(host);
                    let record = RData::SRV(SRV { priority: 0, weight: 0, port: *port, target });
                    answer.answers.push(ResourceRecord::new(query.questions[0].qname.clone(), CLASS::IN, 60, record));
                }
            }
        }
        answer.build_bytes_vec().expect("encoded")
    }

    fn texts(hosts: &[ServiceHost]) -> Vec<String> {
        hosts.iter().map(|found| format!("{}:{}", found.host, found.port)).collect()
    }

    #[tokio::test]
    async fn hosts_of_a_service_come_from_the_first_server_that_answers() {
        let hosts = &[("b.example.com", 8781), ("a.example.com", 1), ("b.example.com", 8781)];
        for behaviour in [Behaviour::Answers, Behaviour::AnswersAfterForgeries, Behaviour::AnswersOverTcpOnly] {
            let server = name_server(behaviour, hosts).await;
            for name in [SERVICE, "_targetwatch._tcp.example.com."] {
                let found = ask(name, &[server], LONG).await.expect("hosts");
                assert_eq!(texts(&found), ["a.example.com:1", "b.example.com:8781"]);
            }
        }
        let silent = name_server(Behaviour::IsSilent, &[]).await;
        let refusing = name_server(Behaviour::Refuses, &[]).await;
        let well = name_server(Behaviour::Answers, &[("a.example.com", 1)]).await;
        let found = ask(SERVICE, &[refusing, silent, well], Duration::from_secs(1)).await.expect("hosts");
        assert_eq!(texts(&found), ["a.example.com:1"]);
    }

    #[tokio::test]
    async fn service_without_hosts_and_silent_servers_are_errors() {
        let no_such_name = name_server(Behaviour::DoesNotKnowTheName, &[]).await;
        let empty = name_server(Behaviour::Answers, &[]).await;
        let withdrawn = name_server(Behaviour::Answers, &[("", 0)]).await;
        for server in [no_such_name, empty, withdrawn] {
            let error = ask(SERVICE, &[server], LONG).await.expect_err("no hosts");
            assert!(matches!(error, SrvError::NoRecords), "{error}");
        }
        let refusing = name_server(Behaviour::Refuses, &[]).await;
        let error = ask(SERVICE, &[refusing], LONG).await.expect_err("refused").to_string();
        assert!(error.contains(&format!("no name server answered: {refusing} answers with Refused")), "{error}");
        let silent = name_server(Behaviour::IsSilent, &[]).await;
        let error = ask(SERVICE, &[silent], SHORT).await.expect_err("silent").to_string();
        assert!(error.contains("was silent for 100 ms"), "{error}");
        for wrong in ["a..b", &"x".repeat(64), &"a.".repeat(200)] {
            assert!(matches!(ask(wrong, &[], LONG).await, Err(SrvError::Name)), "{wrong}");
        }
    }

    #[test]
    fn name_servers_are_those_of_resolv_conf() {
        let text = "# a comment\nsearch example.com\nnameserver 192.0.2.1\nnameserver fe80::1%2 # link\nnameserver x\n\tnameserver 2001:db8::1\nnameserver 192.0.2.9\n";
        let found: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[fe80::1%2]:53", "[2001:db8::1]:53"]);
        assert_eq!(servers("nameserver\n"), [SocketAddr::from(([127, 0, 0, 1], 53))]);
    }
}
