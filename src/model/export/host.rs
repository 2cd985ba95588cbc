//! Hosts in exports.

use std::net::Ipv6Addr;

/// Removes the brackets of an IPv6 address.
pub(super) fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// Returns whether `host` is a host name (RFC 1123, and underscores, which are in use), an IPv4 address, or a
/// bracketed IPv6 address. A name must not begin with `-`, because a command would parse it as an option.
pub(super) fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        let Some(inner) = inner.strip_suffix(']') else {
            return false;
        };
        let (address, zone) = inner.split_once('%').map_or((inner, None), |(a, z)| (a, Some(z)));
        return address.parse::<Ipv6Addr>().is_ok()
            && zone.is_none_or(|zone| !zone.is_empty() && zone.bytes().all(is_host_byte));
    }
    !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(is_host_byte)
        && host.split('.').all(|label| !label.is_empty() && !label.starts_with('-'))
}

/// Returns the canonical spelling of a host.
pub(super) fn canonical_host(host: &str) -> String {
    match unbracketed(host).parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
    }
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}
