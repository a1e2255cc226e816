"""Audit a trained classifier: measure what the background does to its predictions.

:class:`Auditor` measures image by image, :func:`audit_findings` averages with intervals, and
:class:`Audit` is what is saved.
"""

from faster_isnet.evaluation.audit.auditor import AuditedNetwork, Auditor, AuditSettings, Measured
from faster_isnet.evaluation.audit.findings import (
    ABOVE,
    BELOW,
    FEWEST,
    OPEN,
    AuditFindings,
    BackgroundFindings,
    GroupFindings,
    MaskFindings,
    ReferenceFindings,
    RelevanceFindings,
    audit_findings,
)
from faster_isnet.evaluation.audit.parts import Parts
from faster_isnet.evaluation.audit.saved_audit import (
    AUDIT,
    IMAGES,
    Audit,
    AuditPicture,
    Counts,
    Masks,
    Model,
)
from faster_isnet.evaluation.audit.variants import ImageVariants

__all__ = [
    "ABOVE",
    "AUDIT",
    "BELOW",
    "FEWEST",
    "IMAGES",
    "OPEN",
    "Audit",
    "AuditFindings",
    "AuditPicture",
    "AuditSettings",
    "AuditedNetwork",
    "Auditor",
    "BackgroundFindings",
    "Counts",
    "GroupFindings",
    "ImageVariants",
    "MaskFindings",
    "Masks",
    "Measured",
    "Model",
    "Parts",
    "ReferenceFindings",
    "RelevanceFindings",
    "audit_findings",
]
