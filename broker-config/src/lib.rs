//! The MQTT broker Ridgeway embeds: rumqttd behind a guard, with users and grants.
