//! Rights: who may publish and subscribe what. Derived from the topic enum; a broker of ours asks
//! here, and the configuration of another broker is generated from here.
//!
//! | role | may publish | may subscribe |
//! |---|---|---|
//! | edge gateway `G` | `{root}/G/#` | `{root}/G/commands/request` |
//! | cloud gateway `G` | its `up`, `{root}/G/status`, `{root}/G/readers/+/status` | its `down` |
//! | bridge | every `down`, `{root}/#` | every `up`, states, `{root}/+/commands/request` |
//! | platform | `{root}/+/commands/request` | `{root}/#` |
//! | panel of `G` | nothing | `{root}/G/status`, `{root}/G/readers/#` |
//! | viewer | nothing | states and events |
//! | custom | what its operator lists | what its operator lists; both also outside `{root}` |

use crate::{GatewayId, Root, topic::Filter};

/// What a user of a broker is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Role {
    /// The gateway on its own site's broker.
    EdgeGateway(GatewayId),
    /// The gateway on the cloud's broker.
    CloudGateway(GatewayId),
    /// The bridge on the cloud's broker.
    Bridge,
    /// An IoT platform: sees all that is public, may send commands.
    Platform,
    /// An access-control panel of one gateway: sees it and its readers.
    Panel(GatewayId),
    /// Sees states and events.
    Viewer,
    /// What an operator lists, for topics of their own beside Ridgeway's. Filters as MQTT writes them.
    Custom {
        /// Filters whose topics it may publish to.
        publish: Vec<String>,
        /// Filters that it may subscribe, and any narrower one.
        subscribe: Vec<String>,
    },
}

impl Role {
    /// The filters whose topics it may publish to, as a broker takes them.
    pub fn publish_filters(&self, root: &Root) -> Vec<String> {
        let filters = match self {
            Role::Custom { publish, .. } => return publish.clone(),
            Role::EdgeGateway(gateway) => vec![Filter::Gateway(gateway.clone())],
            Role::CloudGateway(gateway) => {
                let own = || Some(gateway.clone());
                vec![
                    Filter::LinkUp(own()),
                    Filter::GatewayStatus(own()),
                    Filter::ReaderStatus(own()),
                ]
            }
            Role::Bridge => vec![Filter::LinkDown(None), Filter::All],
            Role::Platform => vec![Filter::CommandRequests(None)],
            Role::Panel(_) | Role::Viewer => vec![],
        };
        filters.iter().map(|filter| filter.format(root)).collect()
    }

    /// The filters that it may subscribe, and any narrower one, as a broker takes them.
    pub fn subscribe_filters(&self, root: &Root) -> Vec<String> {
        let filters = match self {
            Role::Custom { subscribe, .. } => return subscribe.clone(),
            Role::EdgeGateway(gateway) => vec![Filter::CommandRequests(Some(gateway.clone()))],
            Role::CloudGateway(gateway) => vec![Filter::LinkDown(Some(gateway.clone()))],
            Role::Bridge => vec![
                Filter::LinkUp(None),
                Filter::GatewayStatus(None),
                Filter::ReaderStatus(None),
                Filter::CommandRequests(None),
            ],
            Role::Platform => vec![Filter::All],
            Role::Panel(gateway) => vec![
                Filter::GatewayStatus(Some(gateway.clone())),
                Filter::Readers(Some(gateway.clone())),
            ],
            Role::Viewer => vec![
                Filter::GatewayStatus(None),
                Filter::ReaderStatus(None),
                Filter::ReaderEvents(None),
                Filter::GatewayEvents(None),
            ],
        };
        filters.iter().map(|filter| filter.format(root)).collect()
    }

    /// Its name in configurations, logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Role::EdgeGateway(_) => "edge-gateway",
            Role::CloudGateway(_) => "cloud-gateway",
            Role::Bridge => "bridge",
            Role::Platform => "platform",
            Role::Panel(_) => "panel",
            Role::Viewer => "viewer",
            Role::Custom { .. } => "custom",
        }
    }

    /// Whether it may publish to `topic`. A topic with a wildcard is nobody's.
    pub fn may_publish(&self, root: &Root, topic: &str) -> bool {
        !topic.contains(['+', '#'])
            && self.publish_filters(root).iter().any(|granted| covers(granted, topic))
    }

    /// Whether it may subscribe `filter`: every topic that the filter meets lies within what is
    /// granted. What starts with `$`, shared subscriptions too, is nobody's.
    pub fn may_subscribe(&self, root: &Root, filter: &str) -> bool {
        self.subscribe_filters(root).iter().any(|granted| covers(granted, filter))
    }
}

/// Whether every topic that `inner` meets is met by `outer` too. `inner` may be a topic or a filter.
fn covers(outer: &str, inner: &str) -> bool {
    // Wildcards don't meet names that start with `$`, so they grant none.
    if inner.starts_with('$') != outer.starts_with('$') {
        return false;
    }
    let mut outer = outer.split('/');
    let mut inner = inner.split('/');
    loop {
        match (outer.next(), inner.next()) {
            // `a/#` also meets `a`, so the inner one may end here.
            (Some("#"), _) => return true,
            (Some("+"), Some(segment)) if segment != "#" => {}
            (Some(granted), Some(segment)) if granted == segment && segment != "#" => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests;
