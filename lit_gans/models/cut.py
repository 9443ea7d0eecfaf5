"""CUT: Park et al. 2020, "Contrastive learning for unpaired image-to-image translation", arXiv:2007.15651."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.functional import Batch, Terms, mix_seed
from lit_gans.game.arguments import at_least, not_negative
from lit_gans.game.traits import Traits
from lit_gans.models.patch_contrast import WithProjections, at, patch_nce
from lit_gans.models.translation import Translation, source_of

__all__ = ("CUT",)


class CUT(Translation):
    r"""One direction between two kinds of pictures without pairs: what is where stays recognisable, patch by patch.

    .. math::
        L_G = E_a (D(G(a)) - 1)^2 + λ L_{NCE}(a, G(a)) + λ L_{NCE}(b, G(b)), \qquad
        L_{NCE}(x, x') = E_{l, s} \, H(\text{softmax}_{s'}(\hat z_l^s \cdot z_l^{s'} / τ), s)

    with :math:`\hat z_l^s` the features of G's encoder at layer l and place s of the generated picture, and
    :math:`z_l^{s'}` those of its source at all places that were drawn, each through a small network of its layer and
    on the unit sphere: a patch must resemble the patch of the source at the same place more than all other patches of
    the same picture. The discriminator's loss is that of least squares, divided by 2.

    The generator has a method ``features(x, layers)``, as ``networks.ResNetTranslator`` has; the networks behind the
    layers are part of this player.

    FastCUT, the lighter setting of the paper: ``nce_weight=10, identity=False, flip_equivariance=True``. One picture in
    the style of one other (SinCUT, section 4.3): an ``UnpairedImageDataModule`` of two pictures, and ``R1`` as add-on.

    Differs from the paper: the two terms of the encoder are averaged where both are there, and keys carry no gradient,
    both as in its published code. That draws the first weights of both networks by Xavier's rule, times 0.02; here they
    are CycleGAN's.

    When to use it: without pairs, in one direction, in half the time and memory of CycleGAN.

    When not: with pairs (Pix2Pix); where both directions are wanted (CycleGAN). FastCUT's setting often gives the
    source back: look at ``train/g_adversarial``, which stays at 1 then.

    Family: images to images.

    Args:
        nce_weight: λ; 1 in section 4, 10 for FastCUT.
        identity: Whether pictures of the target's kind shall stay what they are, patch by patch: the second term.
        layers: Of the encoder whose features are compared; these five in section 4.
        patches: Places drawn in each layer; 256, appendix C.
        temperature: τ, 0.07 in section 3.
        width: Of the small networks' two layers; 256, section 3.
        flip_equivariance: Whether half of the batches are mirrored on their way through the generator: FastCUT.
        init_std: Standard deviation of the first weights; 0.02, as in CycleGAN.
        **kwargs: All other arguments of ``Translation``.
    """

    traits = Traits(from_pictures=True, one_fake=True, tells_by_sign=False)
    paired, shows_source = False, False

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        nce_weight: float = 1.0,
        identity: bool = True,
        layers: Sequence[int] = (0, 4, 8, 12, 16),
        patches: int = 256,
        temperature: float = 0.07,
        width: int = 256,
        flip_equivariance: bool = False,
        init_std: float | None = 0.02,
        **kwargs: Any,
    ) -> None:
        if not callable(getattr(generator, "features", None)):
            raise ValueError(
                f"{type(self).__name__} compares features of the generator's encoder, and {type(generator).__name__} "
                "has no method features(x, layers): take networks.ResNetTranslator, or give yours one"
            )
        at_least(1, patches=patches, width=width)
        not_negative(nce_weight=nce_weight)
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        whole = WithProjections(generator, tuple(layers), width)
        super().__init__(whole, discriminator, init_std=init_std, **kwargs)
        self.nce_weight, self.identity, self.layers, self.patches = nce_weight, identity, tuple(layers), patches
        self.temperature, self.flip_equivariance = temperature, flip_equivariance

    @property
    def flipped(self) -> bool:
        """Whether this step's pictures are mirrored: a function of the step's seed."""
        return self.flip_equivariance and self.turn is not None and mix_seed(self.rng.initial_seed(), 2) % 2 == 1

    def make(self, inputs: Batch) -> Batch:
        """G(a); of mirrored pictures where these are due."""
        source = source_of(inputs)
        return Batch(self.generator(source.flip(3) if self.flipped else source), source)

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 1 in least squares, as section 4 has it."""
        real_logits = self.discriminate(real)
        fake_logits = self.discriminate(fake)
        return {"real": (real_logits - 1).square().mean() / 2, "fake": fake_logits.square().mean() / 2}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 5."""
        adversarial = (self.discriminate(fake) - 1).square().mean()
        nce = self.nce_weight * self.contrast(source_of(real), fake.x, self.flipped)
        if not self.identity:
            return {"adversarial": adversarial, "nce": nce}
        same = self.nce_weight * self.contrast(real.x, self.generator(real.x))
        return {"adversarial": adversarial, "nce": nce / 2, "identity": same / 2}

    def contrast(self, source: Tensor, made: Tensor, flipped: bool = False) -> Tensor:
        """Equation 4: the mean over layers and places of the cross entropy of finding the same place."""
        network: Any = self.generator
        with torch.no_grad():
            keys = network.features(source, self.layers)
        queries = network.features(made, self.layers)
        if flipped:
            queries = [feature.flip(3) for feature in queries]
        losses = []
        for project, query, key in zip(network.projections, queries, keys, strict=True):
            places = self.draw_places(query)
            with torch.no_grad():
                vectors = project(at(key, places))
            losses.append(patch_nce(project(at(query, places)), vectors, self.temperature))
        return torch.stack(losses).mean()

    def draw_places(self, feature: Tensor) -> Tensor:
        """Places of a map (N, C, H, W), the same for all its pictures, none twice; int64 (at most ``patches``,)."""
        order = torch.randperm(feature.shape[2] * feature.shape[3], generator=self.rng, device=feature.device)
        return order[: self.patches]
