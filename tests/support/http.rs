//! A REST client with a credential.

use std::{sync::Once, time::Duration};

use serde_json::Value;

#[derive(Clone)]
pub(crate) struct Api {
    base: String,
    key: String,
    client: reqwest::Client,
}

/// One TLS provider for the process, as in the product; plain HTTP needs it too.
pub(crate) fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}

impl Api {
    pub(crate) fn new(address: &str, key: &str) -> Self {
        install_tls();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        Self { base: format!("http://{address}"), key: key.to_owned(), client }
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.send(self.client.get(self.url(path))).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(self.client.post(self.url(path)).json(&body)).await
    }

    /// The same where the service may be dead.
    pub(crate) async fn try_get(&self, path: &str) -> Option<(u16, Value)> {
        self.try_send(self.client.get(self.url(path))).await
    }

    pub(crate) async fn try_post(&self, path: &str, body: Value) -> Option<(u16, Value)> {
        self.try_send(self.client.post(self.url(path)).json(&body)).await
    }

    /// Address and key.
    pub(crate) fn login(&self) -> (&str, &str) {
        (self.base.trim_start_matches("http://"), &self.key)
    }

    /// GET of something that isn't JSON, which must succeed.
    pub(crate) async fn text(&self, path: &str) -> String {
        let request = self.client.get(self.url(path)).header("x-api-key", &self.key);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "GET {path}");
        response.text().await.unwrap()
    }

    /// GET that must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, path: &str) -> impl Future<Output = Value> {
        let (api, path) = (self.clone(), path.to_owned());
        async move {
            let (status, body) = api.get(&path).await;
            assert_eq!(status, 200, "GET {path}: {body}");
            body
        }
    }

    /// All events that the service has, oldest first.
    pub(crate) async fn events(&self) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let after = all.last().map(|event| format!("&after={}", super::text(event, "id")));
            let path = format!("/api/events?limit=1000{}", after.unwrap_or_default());
            let page = self.ok(&path).await;
            let events = page
                .as_array()
                .cloned()
                .unwrap_or_else(|| page["events"].as_array().expect("a list of events").clone());
            if events.is_empty() {
                return all;
            }
            all.extend(events);
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        self.exchange(request).await.unwrap()
    }

    async fn try_send(&self, request: reqwest::RequestBuilder) -> Option<(u16, Value)> {
        self.exchange(request.timeout(Duration::from_secs(5))).await.ok()
    }

    async fn exchange(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<(u16, Value), reqwest::Error> {
        let response = request.header("X-API-Key", &self.key).send().await?;
        let status = response.status().as_u16();
        let body = response.text().await?;
        Ok((status, serde_json::from_str(&body).unwrap_or(Value::String(body))))
    }
}
