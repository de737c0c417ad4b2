//! `exchange`: the client, the route, the id and the notes of an exchange.
//!
//! This module does not know: how a client is identified.

use wasmtime::Result;

use crate::bindings::witgate::gateway::{exchange, types};
use crate::exchange::TlsInfo;
use crate::failure::HostTrap;
use crate::filter::CallState;

impl exchange::Host for CallState {
    fn client(&mut self) -> Result<types::ClientInfo> {
        let client = &self.exchange.client;
        let tls = client.tls.as_deref().map(tls);
        let address = client.address;
        Ok(types::ClientInfo { ip: address.ip().to_canonical().to_string(), port: address.port(), tls })
    }

    fn route(&mut self) -> Result<String> {
        Ok(self.exchange.route.to_string())
    }

    fn id(&mut self) -> Result<String> {
        Ok(self.exchange.id_text())
    }

    fn note(&mut self, name: String) -> Result<Option<String>> {
        Ok(self.journal.note(&self.exchange, &name).map(str::to_owned))
    }

    fn set_note(&mut self, name: String, value: String) -> Result<()> {
        let owner = &self.filter.settings.name;
        self.journal.set_note(&self.exchange, owner, name, value).map_err(|refusal| HostTrap::from(refusal).into())
    }
}

fn tls(info: &TlsInfo) -> types::Tls {
    types::Tls {
        version: info.version.to_owned(),
        server_name: info.server_name.clone(),
        alpn: info.alpn.map(str::to_owned),
        peer: info.peer.as_ref().map(|peer| types::Certificate {
            subject: peer.subject.clone(),
            alternative_names: peer.alternative_names.clone(),
            sha256: peer.sha256.clone(),
        }),
    }
}
