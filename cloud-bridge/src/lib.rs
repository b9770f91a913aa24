//! The cloud side: ingest, commands, store, REST and WebSocket API, dashboard.
