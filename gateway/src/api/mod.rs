//! The documented REST and WebSocket service.
