//! A configuration as a drill plays it: its groups with simulated servers in the place of the real ones.
//!
//! Pure. Everything that judges is taken as configured: tiers, protocols, limits, patience, hold, bounds, local
//! answers. What is not: `"system"` stands for two servers, since the drill must come out alike on every machine; hosts
//! files are not read; and the drill's clients may ask whatever `access.allow` says, since it rehearses outages and
//! not access.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::script::{Act, Scenario, Who};
use crate::cache::guard::GuardSettings;
use crate::config::{Config, GroupConfig, Mistake, UpstreamConfig};
use crate::serve::admit::{AdmitSettings, Allowed};
use crate::serve::local::LocalSettings;
use crate::serve::route::Routes;
use crate::upstream::{GroupSettings, Order, ServerSettings};
use crate::wire::Name;

/// What a drill takes of a configuration.
#[derive(Clone, Debug)]
pub struct Stage {
    /// How the configuration is called.
    pub name: String,
    /// Its groups.
    pub groups: Vec<Part>,
    /// Who may ask: the drill's clients too.
    pub admit: AdmitSettings,
    /// What is answered here.
    pub local: LocalSettings,
    /// Do addresses turn?
    pub rotate: bool,
    /// Is what is asked often asked again before it runs out?
    pub refresh_ahead: bool,
    /// Names that must not vanish.
    pub guards: Vec<GuardSettings>,
}

/// A group of the configuration.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its settings, `"system"` replaced.
    pub settings: GroupSettings,
    /// What the names that it is asked for end in; `None` where no name of a drill leads to it.
    pub suffix: Option<Name>,
}

/// Addresses that stand for `"system"`.
const SYSTEM: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 251), Ipv4Addr::new(192, 0, 2, 252)];
/// Suffixes that are tried for a group with the root: one of another group's would lead there.
const SUFFIXES: [&str; 3] = ["test", "example", "drill"];

impl Stage {
    /// Of a configuration that is called `name`.
    pub fn new(name: &str, config: &Config) -> Self {
        let zones = config.groups.iter().enumerate().flat_map(|(i, g)| g.settings.zones.iter().map(move |z| (z, i)));
        let routes = Routes::new(zones);
        let groups = config.groups.iter().enumerate().map(|(i, group)| {
            let root = group.settings.zones.contains(&Name::root());
            let fixed = SUFFIXES.iter().filter(|_| root).filter_map(|s| s.parse().ok());
            let leads_here = |name: &Name| routes.find(name.as_wire()) == Some(i);
            let suffix = fixed.chain(group.settings.zones.iter().cloned()).find(leads_here);
            Part { settings: resolved(group), suffix: suffix.filter(|s| *s != Name::root()) }
        });
        let mut admit = config.admit.clone();
        admit.allow.push(Allowed::Private);
        Self {
            name: name.to_owned(),
            groups: groups.collect(),
            admit,
            local: config.local.clone(),
            rotate: config.cache.rotate,
            refresh_ahead: config.cache.refresh_ahead,
            guards: config.guards.clone(),
        }
    }

    /// Which servers each act strikes, by group and place; a server's name that the configuration does not have is a
    /// mistake of the scenario.
    pub fn struck(&self, scenario: &Scenario) -> Result<Vec<Vec<Vec<bool>>>, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        for act in &scenario.acts {
            for who in &act.who {
                if let Who::Server(name) = who
                    && !self.servers().any(|(_, _, s)| is_called(s, name))
                {
                    let mut names: Vec<&str> = self.servers().map(|(_, _, s)| s.name.as_str()).collect();
                    names.truncate(8);
                    mistakes.push(Mistake {
                        place: act.place.clone(),
                        what: format!("act.who: no server of {} is called {name:?}", self.name),
                        hint: Some(format!("a tier, \"all\", \"v4\", \"v6\", or one of {}", names.join(", "))),
                    });
                }
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let strikes = |act: &Act, group: usize| {
            let servers = self.servers().filter(|(g, ..)| *g == group);
            servers.map(|(_, tier, s)| act.who.iter().any(|who| is_meant(who, tier, s))).collect::<Vec<bool>>()
        };
        Ok(scenario.acts.iter().map(|act| (0..self.groups.len()).map(|g| strikes(act, g)).collect()).collect())
    }

    /// Group, tier and settings of every server, in the order of [`crate::upstream::ServerId`].
    pub fn servers(&self) -> impl Iterator<Item = (usize, usize, &ServerSettings)> {
        self.groups.iter().enumerate().flat_map(|(g, part)| {
            let tiers = part.settings.tiers.iter().enumerate();
            tiers.flat_map(move |(tier, servers)| servers.iter().map(move |s| (g, tier, s)))
        })
    }

    /// Tiers of a group that have servers.
    pub fn tiers_of(&self, group: usize) -> usize {
        self.groups[group].settings.tiers.iter().filter(|t| !t.is_empty()).count()
    }
}

fn is_called(server: &ServerSettings, name: &str) -> bool {
    server.name == name || server.address.ip().to_string() == name
}

fn is_meant(who: &Who, tier: usize, server: &ServerSettings) -> bool {
    match who {
        Who::All => true,
        Who::Tier(t) => *t == tier,
        Who::V4 => server.address.is_ipv4(),
        Who::V6 => server.address.is_ipv6(),
        Who::Server(name) => is_called(server, name),
    }
}

fn resolved(group: &GroupConfig) -> GroupSettings {
    let mut settings = group.settings.clone();
    let mut any_system = false;
    settings.tiers = group.tiers.each_ref().map(|tier| {
        let mut servers = Vec::new();
        for upstream in tier {
            match upstream {
                UpstreamConfig::Server(server) => servers.push(server.clone()),
                UpstreamConfig::System => {
                    any_system = true;
                    servers.extend(SYSTEM.map(|ip| ServerSettings::at(SocketAddr::new(IpAddr::V4(ip), 53))));
                }
            }
        }
        servers
    });
    if any_system {
        settings.order = Order::Listed;
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::drill::reading;

    const TEXT: &str = r#"
[groups.default]
primary = ["system"]
secondary = ["tcp://[2001:db8::2]:53"]
[groups.lab]
zones = ["test", "lab.example"]
primary = [{ address = "192.0.2.9", name = "lab" }]
[groups.hidden]
zones = ["x.hidden.test"]
primary = ["192.0.2.10"]
"#;

    fn stage() -> Stage {
        Stage::new("x", &parse(TEXT, &|_| None, &[]).unwrap().0)
    }

    fn suffix(stage: &Stage, name: &str) -> String {
        let part = stage.groups.iter().find(|g| g.settings.name == name).unwrap();
        part.suffix.as_ref().map(Name::to_string).unwrap_or_default()
    }

    #[test]
    fn every_group_has_names_that_lead_to_it() {
        let stage = stage();
        for (group, want) in [("default", "example."), ("lab", "test."), ("hidden", "x.hidden.test.")] {
            assert_eq!(suffix(&stage, group), want, "{group}");
        }
    }

    #[test]
    fn system_stands_for_two_servers_that_are_asked_as_listed() {
        let stage = stage();
        let default = &stage.groups.iter().find(|g| g.settings.name == "default").unwrap().settings;
        assert_eq!((default.tiers.each_ref().map(Vec::len), default.order), ([2, 1, 0], Order::Listed));
    }

    #[test]
    fn an_act_strikes_whom_its_words_mean() {
        let stage = stage();
        let count = |who: &str| {
            let text = format!(
                "title = \"x\"\n[[load]]\nask = \"new\"\n[[act]]\nat = \"0s\"\nwho = {who}\nwhat = \"silent\"\n\
                 [[objective]]\nfresh = 0.0\n"
            );
            let struck = stage.struck(&reading::parse("x", &text).unwrap());
            struck.map(|acts| acts[0].iter().flatten().filter(|s| **s).count()).map_err(|m| m[0].what.clone())
        };
        for (who, want) in [
            ("\"all\"", Ok(5)),
            ("\"primary\"", Ok(4)),
            ("\"secondary\"", Ok(1)),
            ("\"tertiary\"", Ok(0)),
            ("\"v4\"", Ok(4)),
            ("\"v6\"", Ok(1)),
            ("\"lab\"", Ok(1)),
            ("[\"192.0.2.9\", \"v6\"]", Ok(2)),
            ("\"nobody\"", Err("act.who: no server of x is called \"nobody\"".to_owned())),
        ] {
            assert_eq!(count(who), want, "{who}");
        }
    }
}
