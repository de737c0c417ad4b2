//! The content of a certificate as text and numbers: for filters, logs and the selection by name.
//!
//! The subject is a text of RFC 4514, so that a filter can compare it with the output of other
//! tools. Control characters are always escaped, because the text goes to logs and headers.
//!
//! This module does not know: whether the certificate is trusted.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use x509_parser::asn1_rs::ToDer as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Alternative names above this number are ignored.
const NAMES_MAX: usize = 1000;

/// The content of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CertificateInfo {
    /// The subject as a text of RFC 4514.
    pub(super) subject: String,
    /// Each has its kind as a prefix: `dns:a.test`, `ip:::1`, `uri:spiffe://…`, `email:a@b`.
    pub(super) alternative_names: Vec<String>,
    /// SHA-256 of the DER, in lower-case hexadecimal.
    pub(super) sha256: String,
    /// Valid from.
    pub(super) not_before: SystemTime,
    /// Valid until.
    pub(super) not_after: SystemTime,
}

impl CertificateInfo {
    /// Parses a DER certificate.
    pub(super) fn read(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| format!("not a certificate: {error}"))?;
        let validity = certificate.validity();
        Ok(Self {
            subject: distinguished_name(certificate.subject()),
            alternative_names: alternative_names(&certificate),
            sha256: hex::encode(Sha256::digest(der)),
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        })
    }

    /// The hosts that the certificate covers: names in lower case and IP addresses (RFC 9110,
    /// sections 4.3.4 and 4.3.5).
    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.alternative_names.iter().filter_map(|name| name.strip_prefix("dns:").or(name.strip_prefix("ip:")))
    }

    /// The host names, in lower case. Only these select the certificate.
    pub(super) fn dns_names(&self) -> impl Iterator<Item = &str> {
        self.alternative_names.iter().filter_map(|name| name.strip_prefix("dns:"))
    }
}

/// What is wrong with the order of a chain: each certificate is followed by its issuer (RFC 8446,
/// section 4.4.2). Some clients search for the issuer in the chain, others refuse it.
pub(super) fn order_mistake(chain: &[rustls::pki_types::CertificateDer<'_>]) -> Option<String> {
    let parsed: Vec<_> = chain.iter().filter_map(|der| X509Certificate::from_der(der).ok()).collect();
    let pair = parsed.windows(2).find(|pair| pair[0].1.issuer().as_raw() != pair[1].1.subject().as_raw())?;
    let name = distinguished_name;
    Some(format!(
        "{} was issued by {}, but {} follows it in the file: write the leaf, then each issuer; \
         some clients refuse the chain as it is",
        name(pair[0].1.subject()),
        name(pair[0].1.issuer()),
        name(pair[1].1.subject())
    ))
}

/// The host names of a certificate, or its subject if it has none.
pub(super) fn shown_names(info: &CertificateInfo) -> String {
    let names: Vec<&str> = info.dns_names().collect();
    if names.is_empty() { info.subject.clone() } else { names.join(", ") }
}

/// Clamps a time to the years 1970 to 9999, so that it can be printed.
fn time(seconds: i64) -> SystemTime {
    const LAST: u64 = 253_402_300_799;
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(LAST))
}

fn alternative_names(certificate: &X509Certificate) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return vec![] };
    let shown = |name: &GeneralName| match name {
        GeneralName::DNSName(name) => Some(format!("dns:{}", escaped_controls(&name.to_ascii_lowercase()))),
        GeneralName::URI(uri) => Some(format!("uri:{}", escaped_controls(uri))),
        GeneralName::RFC822Name(address) => Some(format!("email:{}", escaped_controls(address))),
        GeneralName::IPAddress(bytes) => ip(bytes).map(|address| format!("ip:{address}")),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(shown).take(NAMES_MAX).collect()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// RFC 4514, section 2: the last part comes first. A comma separates parts, and a plus sign the
/// values of one part.
fn distinguished_name(name: &X509Name) -> String {
    let mut parts: Vec<String> =
        name.iter().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.reverse();
    parts.join(",")
}

/// The short names of RFC 4514, section 3. Another type is written as its number, and its value as
/// hexadecimal DER (section 2.4).
fn attribute(attribute: &AttributeTypeAndValue) -> String {
    let oid = attribute.attr_type().to_id_string();
    let short = match oid.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.6" => "C",
        "2.5.4.9" => "STREET",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        _ => "",
    };
    match attribute.as_str() {
        Ok(value) if !short.is_empty() => format!("{short}={}", escaped(value)),
        _ => {
            let der = attribute.attr_value().to_der_vec().unwrap_or_default();
            format!("{}=#{}", if short.is_empty() { &oid } else { short }, hex::encode(der))
        }
    }
}

/// Escapes a value by RFC 4514, section 2.4.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (at, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', c]),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            c if c.is_control() => text.push_str(&escaped_controls(c.encode_utf8(&mut [0; 4]))),
            c => text.push(c),
        }
    }
    text
}

/// Writes each byte of a control character as `\` and two hexadecimal digits.
fn escaped_controls(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        if c.is_control() {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                text.push_str(&format!("\\{byte:02x}"));
            }
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    #[test]
    fn subject_and_names_are_text() -> anyhow::Result<()> {
        let mut params = CertificateParams::new(vec!["A.Test".to_owned(), "*.b.test".to_owned()])?;
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.subject_alt_names.push(SanType::URI("spiffe://a/b".try_into()?));
        params.subject_alt_names.push(SanType::Rfc822Name("a@b.test".try_into()?));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Acme, Inc.");
        params.distinguished_name.push(DnType::CommonName, " #a+b\r\n");
        params.not_after = rcgen::date_time_ymd(2040, 1, 2);
        let certificate = params.self_signed(&KeyPair::generate()?)?;
        let info = CertificateInfo::read(certificate.der()).map_err(anyhow::Error::msg)?;
        assert_eq!(info.subject, "CN=\\ #a\\+b\\0d\\0a,O=Acme\\, Inc.");
        assert_eq!(
            info.alternative_names,
            ["dns:a.test", "dns:*.b.test", "ip:127.0.0.1", "uri:spiffe://a/b", "email:a@b.test"]
        );
        assert_eq!(info.dns_names().collect::<Vec<_>>(), ["a.test", "*.b.test"]);
        assert_eq!(info.sha256.len(), 64);
        assert_eq!(httpdate::fmt_http_date(info.not_after), "Mon, 02 Jan 2040 00:00:00 GMT");
        Ok(())
    }

    #[test]
    fn unknown_attribute_types_are_numbers() -> anyhow::Result<()> {
        let mut params = CertificateParams::new(vec![])?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 3]), "x");
        let certificate = params.self_signed(&KeyPair::generate()?)?;
        let info = CertificateInfo::read(certificate.der()).map_err(anyhow::Error::msg)?;
        assert_eq!(info.subject, "1.2.3=#0c0178");
        Ok(())
    }

    #[test]
    fn damaged_certificates_do_not_panic() -> anyhow::Result<()> {
        let valid = CertificateParams::new(vec!["a.test".to_owned()])?.self_signed(&KeyPair::generate()?)?;
        for at in 0..valid.der().len() {
            for bit in [1, 0x80] {
                let mut bytes = valid.der().to_vec();
                bytes[at] ^= bit;
                let _ = CertificateInfo::read(&bytes);
            }
            let _ = CertificateInfo::read(&valid.der()[..at]);
        }
        Ok(())
    }
}
