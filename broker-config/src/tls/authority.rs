//! A certificate authority of this broker's own, for sites that have none.
//!
//! | file in the directory | what | mode |
//! |---|---|---|
//! | `ca.pem` | the authority's certificate: give it to panels; valid to the end of 2049 | 0644 |
//! | `ca.key` | its key: whoever has it can make certificates for this broker and its users | 0600 |
//! | `server.pem`, `server.key` | the broker's own, 397 days, renewed 60 days before | 0644, 0600 |
//!
//! The authority's dates don't depend on the clock: a gateway with a dead real-time clock would
//! otherwise make one that is never valid. The server's do, and are looked at again and again.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use jiff::{Span, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use x509_parser::{extensions::GeneralName, pem::Pem};

use super::TlsError;

const SERVER_DAYS: i64 = 397;
const CLIENT_DAYS: i64 = 825;
const RENEW_DAYS: i64 = 60;

/// The authority in a directory.
#[derive(Debug, Clone)]
pub struct Authority {
    directory: PathBuf,
}

/// A certificate for a client, PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The authority that the client shall trust.
    pub authority: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority in `directory`; made on first use.
    pub fn open(directory: &Path) -> Result<Self, TlsError> {
        let authority = Self { directory: directory.to_owned() };
        if !authority.certificate_file().exists() || !authority.key_file().exists() {
            authority.make()?;
        }
        Ok(authority)
    }

    /// Its certificate, which clients trust.
    pub fn certificate_file(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    fn key_file(&self) -> PathBuf {
        self.directory.join("ca.key")
    }

    fn make(&self) -> Result<(), TlsError> {
        fs::create_dir_all(&self.directory)
            .map_err(|source| TlsError::Write { path: self.directory.clone(), source })?;
        let key = KeyPair::generate().map_err(make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Ridgeway MQTT authority");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2049, 12, 31);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(make)?;
        // The key first: a certificate without its key would be taken for a whole authority.
        write(&self.key_file(), key.serialize_pem().as_bytes(), 0o600)?;
        write(&self.certificate_file(), certificate.pem().as_bytes(), 0o644)
    }

    /// The server's chain and key, made or renewed when they are missing, nearly over, or for other
    /// names than the machine has now.
    pub(crate) fn server_files(&self, extra: &[String]) -> Result<(PathBuf, PathBuf), TlsError> {
        let (path, key_path) =
            (self.directory.join("server.pem"), self.directory.join("server.key"));
        let names = server_names(extra);
        if key_path.exists() && is_good(&path, &names) {
            return Ok((path, key_path));
        }
        let mut params = CertificateParams::new(names).map_err(make)?;
        params.distinguished_name = named("Ridgeway MQTT broker");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (pem, key) = self.sign(params, SERVER_DAYS)?;
        write(&key_path, key.as_bytes(), 0o600)?;
        write(&path, pem.as_bytes(), 0o644)?;
        Ok((path, key_path))
    }

    /// A certificate with which `user` signs in.
    pub fn issue_client(&self, user: &str) -> Result<Issued, TlsError> {
        if !crate::config::is_user_name(user) {
            return Err(TlsError::Make(format!("{user:?} is no user's name")));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = named(user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = self.sign(params, CLIENT_DAYS)?;
        let authority = text(&self.certificate_file())?;
        Ok(Issued { certificate, key, authority })
    }

    fn sign(&self, mut params: CertificateParams, days: i64) -> Result<(String, String), TlsError> {
        let today = today();
        params.not_before = ymd(today - Span::new().days(1));
        params.not_after = ymd(today + Span::new().days(days));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        super::refuse_open_key(&self.key_file())?;
        let ca_key = KeyPair::from_pem(&text(&self.key_file())?).map_err(make)?;
        let issuer =
            Issuer::from_ca_cert_pem(&text(&self.certificate_file())?, ca_key).map_err(make)?;
        let key = KeyPair::generate().map_err(make)?;
        let certificate = params.signed_by(&key, &issuer).map_err(make)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn make(error: rcgen::Error) -> TlsError {
    TlsError::Make(error.to_string())
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn today() -> Date {
    jiff::Timestamp::now().to_zoned(TimeZone::UTC).date()
}

fn ymd(date: Date) -> time::OffsetDateTime {
    date_time_ymd(date.year().into(), date.month() as u8, date.day() as u8)
}

/// Whether the certificate has weeks left, has begun, and is for these names.
fn is_good(path: &Path, names: &[String]) -> bool {
    let Ok(bytes) = fs::read(path) else { return false };
    let Some(Ok(pem)) = Pem::iter_from_buffer(&bytes).next() else { return false };
    let Ok(certificate) = pem.parse_x509() else { return false };
    let now = jiff::Timestamp::now().as_second();
    let validity = certificate.validity();
    let left = validity.not_after.timestamp() - now;
    if left < RENEW_DAYS * 86_400 || validity.not_before.timestamp() > now {
        return false;
    }
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return false };
    let held: Vec<String> = alternatives
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect();
    names.iter().all(|name| held.contains(name))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// What clients may call this machine: loopback, its name, the addresses that it speaks from, and what
/// the configuration adds.
fn server_names(extra: &[String]) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend(host_name());
    names.extend(own_addresses().iter().map(ToString::to_string));
    names.extend(extra.iter().cloned());
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

#[cfg(unix)]
fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    (!name.is_empty() && name.is_ascii()).then_some(name)
}

#[cfg(not(unix))]
fn host_name() -> Option<String> {
    None
}

/// The addresses from which this machine would speak to others. "Connecting" a UDP socket only looks
/// the route up; nothing is sent.
fn own_addresses() -> Vec<IpAddr> {
    let elsewhere: [(&str, &str); 2] =
        [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    elsewhere
        .iter()
        .filter_map(|(from, to)| {
            let socket = UdpSocket::bind(from).ok()?;
            socket.connect(to.parse::<SocketAddr>().ok()?).ok()?;
            Some(socket.local_addr().ok()?.ip())
        })
        .filter(|address| !address.is_unspecified() && !address.is_loopback())
        .collect()
}

fn text(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// Writes beside it and renames, so that nobody ever reads half a file.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    let failed = |source| TlsError::Write { path: path.to_owned(), source };
    let beside = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(&beside).map_err(failed)?;
    io::Write::write_all(&mut file, bytes).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)
}
