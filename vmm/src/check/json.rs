//! The answer for programs.

use net_afxdp::{Ability, Probe, Problem, XdpFeatures};
use serde_json::{Map, Value, json};

use super::{NetdevCheck, table};

impl NetdevCheck {
    /// An object with all that the table has; what is not known is null. Sizes are in bytes.
    pub fn json(&self) -> Value {
        let probe = self.probe.as_ref();
        json!({
            "works": self.works(),
            "ifname": self.ifname,
            "problems": self.problems.iter().map(problem).collect::<Value>(),
            "interface": probe.map(interface),
            "driver": probe.and_then(|it| it.driver.clone()),
            "kernel": probe.map(|it| it.kernel.clone()),
            "program": probe.and_then(|it| it.program.as_ref()).map(|it| json!({
                "id": it.id,
                "name": it.name,
                "mode": it.mode,
            })),
            "features": probe.and_then(|it| it.features).map(features),
            "offloads": probe.map(offloads),
            "abilities": probe.map(abilities),
            "memory": probe.map(|it| json!({
                "needed": it.memory_needed,
                "limit": it.memory_limit.bytes(),
            })),
            "one_chunk_mtu": probe.map(|it| it.one_chunk_mtu),
            "rights": probe.map(rights),
            "trial": self.trial.as_ref().map(|it| match it {
                Ok(opened) => json!({
                    "mode": opened.mode.to_string(),
                    "zero_copy": opened.zero_copy,
                    "tx_checksum": opened.tx_checksum,
                    "mtu": opened.mtu,
                }),
                Err(why) => json!({ "error": why }),
            }),
        })
    }
}

fn problem(problem: &Problem) -> Value {
    json!({ "what": problem.what, "fix": problem.fix, "blocks": problem.blocks })
}

fn interface(probe: &Probe) -> Value {
    let it = &probe.interface;
    json!({
        "name": it.name(),
        "index": it.index(),
        "up": it.admin_up(),
        "carrier": it.link_up(),
        "mtu": it.mtu(),
        "queues": it.queues(),
        "max_queues": it.max_queues(),
    })
}

fn features(features: XdpFeatures) -> Value {
    json!({
        "native": features.native,
        "zero_copy": features.zero_copy,
        "multi_buffer": features.multi_buffer,
        "zero_copy_fragments": features.zero_copy_fragments,
        "tx_checksum": features.tx_checksum,
    })
}

fn offloads(probe: &Probe) -> Value {
    let named = probe.offloads.iter();
    let named = named.map(|it| (it.name.to_owned(), it.on.into()));
    Value::Object(named.collect())
}

fn abilities(probe: &Probe) -> Value {
    let named = table::named(probe).into_iter();
    let named = named.map(|(key, _, it)| (key.to_owned(), ability(it)));
    Value::Object(named.collect::<Map<_, _>>())
}

fn ability(ability: &Ability) -> Value {
    let (state, why) = match ability {
        Ability::Tried => ("tried", None),
        Ability::Promised => ("promised", None),
        Ability::Refused(why) => ("refused", Some(why.as_str())),
        Ability::Unknown(why) => ("unknown", Some(*why)),
    };
    json!({ "state": state, "why": why })
}

fn rights(probe: &Probe) -> Value {
    let rights = probe.rights.iter();
    rights
        .map(|it| json!({ "name": it.name, "needed_for": it.needed_for, "held": it.held }))
        .collect()
}
