//! `--publish NAME/PORT=ADDR`: which ports of which models listen where. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A port of a model's Service: (model, port), both by name.
type Port = (String, String);

/// Why addresses cannot be given out as asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// A port listens at one address.
    #[error("--publish gives {port} two addresses: {first} and {second}")]
    TwoAddresses {
        /// `NAME/PORT`.
        port: String,
        /// Given first.
        first: SocketAddr,
        /// Given later.
        second: SocketAddr,
    },
    /// An address is one port's.
    #[error("--publish gives {address} to both {first} and {second}")]
    TwoPorts {
        /// The address.
        address: SocketAddr,
        /// `NAME/PORT` that got it first.
        first: String,
        /// `NAME/PORT` that wants it too.
        second: String,
    },
}

/// Reads one value of the flag.
pub(super) fn parse(text: &str) -> Result<(Port, SocketAddr), String> {
    let problem = || format!("{text:?} is not NAME/PORT=ADDR, such as tiny/grpc=127.0.0.1:50051");
    let (port, address) = text.split_once('=').ok_or_else(problem)?;
    let (name, port) = port.split_once('/').ok_or_else(problem)?;
    Ok(((name.to_owned(), port.to_owned()), address.parse().map_err(|_| problem())?))
}

/// Every value by its port. Any number of ports may ask for a free one (port 0).
///
/// # Errors
/// [`PublishError`] names what was given twice.
pub(super) fn collect(values: Vec<(Port, SocketAddr)>) -> Result<BTreeMap<Port, SocketAddr>, PublishError> {
    let words = |(name, port): &Port| format!("{name}/{port}");
    let mut all: BTreeMap<Port, SocketAddr> = BTreeMap::new();
    for (port, address) in values {
        if let Some(&first) = all.get(&port).filter(|first| **first != address) {
            return Err(PublishError::TwoAddresses { port: words(&port), first, second: address });
        }
        let other = all.iter().find(|(other, taken)| **taken == address && **other != port && address.port() != 0);
        if let Some((other, _)) = other {
            return Err(PublishError::TwoPorts { address, first: words(other), second: words(&port) });
        }
        all.insert(port, address);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(values: &[&str]) -> Result<usize, String> {
        let values = values.iter().map(|value| parse(value)).collect::<Result<Vec<_>, _>>()?;
        collect(values).map(|all| all.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_port_has_one_address_and_an_address_one_port() {
        let cases: [(&[&str], Result<usize, &str>); 6] = [
            (&["a/grpc=127.0.0.1:5", "a/http=127.0.0.1:6", "b/grpc=127.0.0.2:5"], Ok(3)),
            (&["a/grpc=127.0.0.1:0", "b/grpc=127.0.0.1:0"], Ok(2)),
            (&["a/grpc=127.0.0.1:5", "a/grpc=127.0.0.1:5"], Ok(1)),
            (
                &["a/grpc=127.0.0.1:5", "b/http=127.0.0.1:5"],
                Err("--publish gives 127.0.0.1:5 to both a/grpc and b/http"),
            ),
            (
                &["a/grpc=127.0.0.1:5", "a/grpc=127.0.0.1:6"],
                Err("--publish gives a/grpc two addresses: 127.0.0.1:5 and 127.0.0.1:6"),
            ),
            (&["a=127.0.0.1:5"], Err("\"a=127.0.0.1:5\" is not NAME/PORT=ADDR, such as tiny/grpc=127.0.0.1:50051")),
        ];
        for (values, expected) in cases {
            assert_eq!(collected(values), expected.map_err(str::to_owned), "{values:?}");
        }
    }
}
