"""Who is seen and how: identities of the eight groups, and the pose, light and expression of a frame.

Every random number comes from a generator that the caller passes; :func:`named_generator` makes one that depends on
names only, so that nothing depends on order, batch or worker.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

_MELANIN = (0.0, 0.35, 0.65, 1.0)  # of these skin tones, RGB; between them they are mixed
_SKIN_TONES = ((0.96, 0.81, 0.72), (0.86, 0.66, 0.50), (0.58, 0.39, 0.27), (0.30, 0.19, 0.13))
_HAIR = {
    "black": (0.07, 0.06, 0.06), "dark": (0.17, 0.11, 0.08), "brown": (0.33, 0.21, 0.13),
    "red": (0.52, 0.25, 0.12), "blond": (0.76, 0.60, 0.36), "grey": (0.62, 0.61, 0.60),
}  # fmt: skip
# What sets the races of the benchmark apart: schematic ranges (low, high), not a claim about people.
_RACE = {
    "asian": dict(
        melanin=(0.12, 0.36), warmth=(0.03, 0.07), aperture=(0.040, 0.056), tilt=(0.10, 0.24), crease=(0.0, 0.1),
        nose=(0.11, 0.145), lips=(0.045, 0.065), curl=(0.0, 0.1), volume=(0.07, 0.12), brow=(0.020, 0.032),
        hair=("black", "black", "black", "dark"), eyes=((0.12, 0.08, 0.06),), beard=0.15,
    ),
    "white": dict(
        melanin=(0.0, 0.18), warmth=(-0.02, 0.02), aperture=(0.066, 0.088), tilt=(-0.06, 0.06), crease=(0.4, 0.8),
        nose=(0.09, 0.125), lips=(0.032, 0.052), curl=(0.0, 0.5), volume=(0.05, 0.12), brow=(0.018, 0.036),
        hair=("dark", "brown", "brown", "red", "blond", "blond", "grey"),
        eyes=((0.30, 0.45, 0.62), (0.34, 0.46, 0.32), (0.33, 0.22, 0.13)), beard=0.4,
    ),
    "black": dict(
        melanin=(0.66, 1.0), warmth=(-0.01, 0.02), aperture=(0.064, 0.084), tilt=(-0.04, 0.08), crease=(0.3, 0.7),
        nose=(0.145, 0.185), lips=(0.075, 0.105), curl=(0.9, 1.0), volume=(0.06, 0.26), brow=(0.022, 0.036),
        hair=("black", "black", "dark"), eyes=((0.12, 0.08, 0.06),), beard=0.4,
    ),
    "others": dict(
        melanin=(0.34, 0.62), warmth=(0.0, 0.04), aperture=(0.062, 0.082), tilt=(-0.04, 0.08), crease=(0.4, 0.8),
        nose=(0.11, 0.15), lips=(0.045, 0.075), curl=(0.3, 0.7), volume=(0.06, 0.14), brow=(0.034, 0.050),
        hair=("black", "black", "dark", "dark"), eyes=((0.20, 0.12, 0.07), (0.12, 0.08, 0.06)), beard=0.5,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Face:
    """Who is seen: what stays the same in every image of an identity. Lengths in face units, colours RGB in [0, 1]."""

    melanin: float  # 0 lightest .. 1 darkest skin
    skin: tuple
    hair: tuple
    iris: tuple
    lip: tuple
    width: float  # half width of the head
    jaw: float  # taper towards the chin
    eye_gap: float
    eye_width: float
    aperture: float
    tilt: float
    crease: float
    lashes: float
    brow: float
    brow_arch: float
    nose: float
    nose_tip: float
    lips: float
    mouth: float
    mouth_width: float
    hairline: float
    fringe: float
    parting: float
    volume: float
    curl: float
    length: float  # lower end of the back hair; below 0 short
    beard: float  # opacity
    moustache: float
    glasses: float
    pores: float  # contrast of the skin's grain, higher on dark skin to be as visible there


@dataclass(frozen=True)
class Scene:
    """How it is seen: pose (radians), place, light, expression and surroundings of one frame."""

    yaw: float
    pitch: float
    roll: float
    x: float
    y: float
    zoom: float
    light: tuple  # unit vector, towards the light
    ambient: float
    open: float  # gap between the lips, face units
    smile: float
    raised: float  # brows
    gaze: float
    blink: float
    backdrop: tuple
    shape: tuple
    cloth: tuple


def named_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Make a generator that depends on the seed and the names only: never on order, process or Python's hash."""
    digest = hashlib.sha256("\n".join(map(str, names)).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], dtype="<u4").tolist()])


def _tone(melanin):
    return [float(np.interp(melanin, _MELANIN, channel)) for channel in zip(*_SKIN_TONES, strict=True)]


def draw_face(rng: np.random.Generator, gender: str, race: str, change: Mapping | None = None) -> Face:
    """Draw an identity of a gender ("male", "female") and race ("asian", "white", "black", "others").

    A `change` shows the same person with another "melanin" (0 to 1), "gender", or "features" (those of a race: all of
    its traits but melanin and beard). Every trait comes of the draw that it comes of without the change, so nothing
    else differs. Only beard and long hair have no counterpart: they are those of another person of that gender.
    """

    def u(low, high):
        return float(rng.uniform(low, high))

    def of(men, women):
        return u(*(men if male else women))

    seen = {"gender": gender, "features": race, **(change or {})}
    traits, male = _RACE[seen["features"]], seen["gender"] == "male"
    melanin, warmth = u(*_RACE[race]["melanin"]), u(*traits["warmth"])
    melanin = seen.get("melanin", melanin)
    red, green, blue = _tone(melanin)
    warmth *= blue / _tone(np.clip(melanin, *traits["melanin"]))[2]  # as much of the tone as where it is at home
    skin = (red, green + 0.5 * warmth, blue - warmth)
    lip = of((0.05, 0.12), (0.10, 0.28))
    bearded = gender == "male" and u(0, 1) < _RACE[race]["beard"]
    stubble = u(0.05, 0.30) if gender == "male" else 0.0
    long = (-0.1, 1.0) if seen["features"] == "black" else (0.35, 1.4)
    face = Face(
        melanin=melanin,
        skin=skin,
        hair=_HAIR[traits["hair"][rng.integers(len(traits["hair"]))]],
        iris=traits["eyes"][rng.integers(len(traits["eyes"]))],
        lip=(min(1.0, skin[0] * (0.84 + 0.4 * lip)), skin[1] * (0.76 - lip), skin[2] * (0.82 - lip)),
        width=of((0.70, 0.78), (0.66, 0.72)),
        jaw=of((0.06, 0.18), (0.22, 0.34)),
        eye_gap=u(0.265, 0.305),
        eye_width=of((0.125, 0.15), (0.14, 0.165)),
        aperture=u(*traits["aperture"]) * (1.0 if male else 1.18),
        tilt=u(*traits["tilt"]),
        crease=u(*traits["crease"]),
        lashes=of((0.008, 0.014), (0.022, 0.034)),
        brow=u(*traits["brow"]) * (1.25 if male else 0.75),
        brow_arch=of((0.0, 0.04), (0.03, 0.09)),
        nose=u(*traits["nose"]) * (1.06 if male else 0.92),
        nose_tip=u(0.18, 0.25),
        lips=u(*traits["lips"]) * (0.9 if male else 1.2),
        mouth=u(0.47, 0.53),
        mouth_width=u(0.22, 0.28),
        hairline=u(-0.84, -0.68),
        fringe=u(0.1, 0.35) if u(0, 1) < 0.25 else 0.0,
        parting=u(-0.25, 0.25),
        volume=u(*traits["volume"]),
        curl=u(*traits["curl"]),
        length=-1.0 if gender == "male" else u(*long),
        beard=u(0.5, 0.85) if bearded else stubble,
        moustache=u(0.5, 0.9) if bearded and u(0, 1) < 0.8 else stubble,
        glasses=u(0.012, 0.022) if u(0, 1) < 0.12 else 0.0,
        pores=u(0.030, 0.045) * (1 + melanin),
    )
    if seen["gender"] == gender:
        return face
    other = draw_face(rng, seen["gender"], seen["features"])
    return replace(face, length=other.length, beard=other.beard, moustache=other.moustache)


def draw_scene(clip: np.random.Generator, frame: np.random.Generator) -> Scene:
    """Draw a frame's scene: ``clip`` (generator) gives what a video keeps, ``frame`` what moves between frames."""

    def around(spread, jitter):
        return float(clip.uniform(-spread, spread) + frame.uniform(-jitter, jitter))

    grey = float(clip.uniform(0.2, 0.75))
    light = np.array([around(0.75, 0.05), -0.35 + around(0.3, 0.03), 1.0])
    cloth = clip.uniform(0.1, 0.8) + clip.uniform(-0.12, 0.12, 3)
    return Scene(
        yaw=around(0.30, 0.12),
        pitch=around(0.15, 0.08),
        roll=around(0.10, 0.05),
        x=around(0.03, 0.02),
        y=0.06 + around(0.03, 0.02),
        zoom=float(1 + clip.uniform(-0.05, 0.05)),
        light=tuple((light / np.linalg.norm(light)).tolist()),
        ambient=float(clip.uniform(0.40, 0.62)),
        open=float(max(0.0, frame.uniform(-0.06, 0.085))),
        smile=float(clip.uniform(-0.2, 0.7) + frame.uniform(-0.3, 0.3)),
        raised=around(0.01, 0.03),
        gaze=around(0.02, 0.02),
        blink=float(frame.uniform(0.6, 0.9)) if frame.uniform() < 0.06 else 0.0,
        backdrop=tuple((grey + clip.uniform(-0.04, 0.04, 3)).tolist()),
        shape=tuple(clip.uniform(-1, 1, 4).tolist()),
        cloth=tuple(np.clip(cloth, 0.05, 0.9).tolist()),
    )
