//! A device that stacks over any other and makes it misbehave on command: latency, errors, lost, torn and corrupted data,
//! silence. The plan is shared with whoever controls it and may change at any time.

mod channel;
mod plan;

use std::sync::Arc;

use engine::Core;
use uuid::Uuid;

use crate::access::Access;
use crate::channel::{Bdev, Channel, OpenError};
use crate::geometry::{Capabilities, Geometry};
use channel::FaultChannel;
pub use plan::{Delay, Fault, FaultPlan, FaultTarget};

/// Control half.
pub struct FaultBdev {
    name: String,
    product: &'static str,
    uuid: Uuid,
    base: Arc<dyn Bdev>,
    plan: FaultPlan,
}

impl FaultBdev {
    /// A device over `base`; `product` names the control method that made it.
    pub fn new(name: impl Into<String>, product: &'static str, uuid: Uuid, base: Arc<dyn Bdev>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), product, uuid, base, plan: FaultPlan::default() })
    }

    /// The faults, to arm and clear.
    pub fn plan(&self) -> &FaultPlan {
        &self.plan
    }

    /// The device below.
    pub fn base(&self) -> &Arc<dyn Bdev> {
        &self.base
    }
}

impl Bdev for FaultBdev {
    fn name(&self) -> &str {
        &self.name
    }

    fn product(&self) -> &'static str {
        self.product
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn geometry(&self) -> Geometry {
        self.base.geometry()
    }

    fn capabilities(&self) -> Capabilities {
        self.base.capabilities()
    }

    fn space(&self) -> Option<crate::Space> {
        self.base.space()
    }

    fn access(&self) -> Access {
        self.base.access()
    }

    fn open(self: Arc<Self>, core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        let base = self.base.clone().open(core)?;
        Ok(Box::new(FaultChannel::new(self.base.clone(), core.pool().clone(), self.plan.clone(), base)))
    }
}
