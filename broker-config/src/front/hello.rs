//! A client's CONNECT, taken apart and judged.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{
    Connect, ConnectProperties, LastWill, LastWillProperties, Login, Packet, PublishProperties,
};

use crate::{
    guard, names,
    refusal::Refusal,
    session::{Granted, Rights, Session, Will},
    shared::Shared,
    slots::{NEVER, Wish},
    users::Claim,
    wire::{self, Frame, Level, Version, kind},
};

use super::{
    MAX_CONNECT_BYTES,
    transport::{Certificate, Peer},
};

/// rumqttd refuses a keep-alive of 0 ("never"); this is the nearest to it, 18 hours.
const KEEP_ALIVE_NEVER: u16 = u16::MAX;

/// A CONNECT, and the bytes that came with it.
pub(super) struct Hello {
    pub(super) version: Version,
    connect: Connect,
    properties: Option<ConnectProperties>,
    will: Option<LastWill>,
    will_properties: Option<LastWillProperties>,
    login: Option<Login>,
    pub(super) rest: Bytes,
}

/// Takes the CONNECT that starts `buffer` apart. Without a version there is no answer to give.
pub(super) fn parse(
    mut buffer: BytesMut,
    frame: Frame,
) -> Result<Hello, (Refusal, Option<Version>)> {
    if frame.kind != kind::CONNECT || frame.flags != 0 {
        return Err((Refusal::NotMqtt, None));
    }
    let version = match wire::level(&buffer, frame) {
        Level::Known(version) => version,
        Level::Other => return Err((Refusal::ProtocolVersion, Some(Version::V311))),
        Level::NotMqtt => return Err((Refusal::NotMqtt, None)),
    };
    match wire::decode(version, &mut buffer, MAX_CONNECT_BYTES) {
        Ok(Packet::Connect(connect, properties, will, will_properties, login)) => Ok(Hello {
            version,
            connect,
            properties,
            will,
            will_properties,
            login,
            rest: buffer.freeze(),
        }),
        Ok(_) | Err(_) => Err((Refusal::Malformed, None)),
    }
}

impl Hello {
    /// The user's name as given, for log lines.
    pub(super) fn user(&self) -> String {
        self.login.iter().flat_map(|login| login.username.chars()).take(64).collect()
    }

    pub(super) fn keep_alive(&self) -> u16 {
        match self.connect.keep_alive {
            0 => KEEP_ALIVE_NEVER,
            seconds => seconds,
        }
    }

    /// How long the client may say nothing.
    pub(super) fn silence(&self) -> Duration {
        Duration::from_secs(self.keep_alive().into()) * 3 / 2
    }

    /// Who it is and what it may do; what it asks of its session.
    pub(super) async fn check(
        &self,
        shared: &Shared,
        peer: &Peer,
    ) -> Result<(Arc<Session>, Wish), Refusal> {
        if self.properties.as_ref().is_some_and(|p| p.authentication_method.is_some()) {
            return Err(Refusal::AuthMethod);
        }
        let identity = shared.users.authenticate(self.claim(peer)?, peer.address.ip()).await?;
        let user = identity.user;
        let rights = Rights::Role(identity.role);
        let (client_id, assigned) = self.client_id()?;
        let will = self.check_will(shared, &rights)?;
        let expiry_secs = self.expiry_secs();
        let wish = Wish { fresh: self.connect.clean_session, keep: expiry_secs > 0 };
        let granted = Granted {
            assigned_client_id: assigned.then(|| client_id.clone()),
            keep_alive_secs: (self.connect.keep_alive == 0).then_some(KEEP_ALIVE_NEVER),
            expiry_secs,
            max_packet_bytes: self.properties.as_ref().and_then(|p| p.max_packet_size),
            receive_max: self.properties.as_ref().and_then(|p| p.receive_maximum),
        };
        let session =
            Session::new(user, client_id, rights, self.version, peer.clone(), granted, will);
        Ok((session, wish))
    }

    /// Whether it would still be let in as what it was: asked once a change of its user can end the
    /// session, so that none slips in between. A login that was right is remembered, so this is quick.
    pub(super) async fn check_again(
        &self,
        shared: &Shared,
        peer: &Peer,
        session: &Session,
    ) -> Result<(), Refusal> {
        let now = shared.users.authenticate(self.claim(peer)?, peer.address.ip()).await?;
        match &session.rights {
            Rights::Role(role) if now.user == session.user && now.role == *role => Ok(()),
            _ => Err(Refusal::BadCredentials),
        }
    }

    /// What it says of itself, and how it proves that.
    fn claim<'a>(&'a self, peer: &'a Peer) -> Result<Claim<'a>, Refusal> {
        match (&peer.certificate, &self.login) {
            (Some(Certificate::User(name)), login) => {
                let login = login.as_ref().map(|login| login.username.as_str());
                Ok(Claim::Certificate { name, login: login.filter(|name| !name.is_empty()) })
            }
            (Some(Certificate::Nameless), _) => Err(Refusal::BadCredentials),
            (None, Some(login)) => {
                Ok(Claim::Password { name: &login.username, password: &login.password })
            }
            (None, None) => Ok(Claim::Nobody),
        }
    }

    /// The client's id, or one for a client that has none; whether it is ours.
    fn client_id(&self) -> Result<(String, bool), Refusal> {
        let id = &self.connect.client_id;
        if !names::is_client_id(id) {
            return Err(Refusal::ClientId);
        }
        if !id.is_empty() {
            return Ok((id.clone(), false));
        }
        if self.version == Version::V311 && !self.connect.clean_session {
            return Err(Refusal::ClientId);
        }
        let random = crate::random_hex().map_err(|_| Refusal::Unavailable)?;
        Ok((format!("auto-{random}"), true))
    }

    /// How long the session goes on when the connection is over.
    fn expiry_secs(&self) -> u32 {
        match self.version {
            Version::V311 if self.connect.clean_session => 0,
            Version::V311 => NEVER,
            Version::V5 => {
                self.properties.as_ref().and_then(|p| p.session_expiry_interval).unwrap_or(0)
            }
        }
    }

    fn check_will(&self, shared: &Shared, rights: &Rights) -> Result<Option<Will>, Refusal> {
        let Some(will) = &self.will else { return Ok(None) };
        let topic = &will.topic;
        let refused = guard::check_topic(shared, rights, topic).is_err()
            || (will.retain && guard::is_command_request(shared, topic))
            || will.message.len() > shared.limits.max_payload_bytes
            || (will.retain && will.message.len() > shared.limits.max_retained_bytes);
        if refused {
            return Err(Refusal::Will);
        }
        let delay = self.will_properties.as_ref().and_then(|p| p.delay_interval).unwrap_or(0);
        Ok(Some(Will {
            topic: topic.clone(),
            payload: will.message.clone(),
            qos: guard::qos_number(will.qos),
            retain: will.retain,
            properties: self.will_properties.as_ref().map(publish_properties),
            delay: Duration::from_secs(delay.min(self.expiry_secs()).into()),
        }))
    }
}

fn publish_properties(will: &LastWillProperties) -> PublishProperties {
    PublishProperties {
        payload_format_indicator: will.payload_format_indicator,
        message_expiry_interval: will.message_expiry_interval,
        content_type: will.content_type.clone(),
        response_topic: will.response_topic.clone(),
        correlation_data: will.correlation_data.clone(),
        user_properties: will.user_properties.clone(),
        ..PublishProperties::default()
    }
}
