//! Certificates as etcd's users have them: PEM files, of which an authority's or a chain's may hold several.

use std::path::Path;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::{EtcdConfig, EtcdError};

pub(super) fn read(path: &Path) -> Result<Vec<u8>, EtcdError> {
    std::fs::read(path).map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, cause: &dyn core::fmt::Display) -> EtcdError {
    EtcdError::File { path: path.to_owned(), cause: cause.to_string() }
}

/// All certificates of a file.
fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, EtcdError> {
    let mut found = Vec::new();
    for item in parse_pem(&read(path)?) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| unusable(path, &error))? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(unusable(path, &"there is no PEM certificate in it")) } else { Ok(found) }
}

/// What the configuration says of TLS.
pub(super) fn config(config: &EtcdConfig) -> Result<TlsConfig, EtcdError> {
    let mut builder = TlsConfig::builder();
    if let Some(file) = &config.ca_file {
        builder = builder.root_certs(RootCerts::new_with_certs(&certificates(file)?));
    }
    let pair = match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err(EtcdError::Half("cert_file", "key_file")),
    };
    if let Some((cert, key)) = pair {
        let chain = certificates(cert)?;
        let key = PrivateKey::from_pem(&read(key)?).map_err(|error| unusable(key, &error))?;
        builder = builder.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
    }
    Ok(builder.build())
}
