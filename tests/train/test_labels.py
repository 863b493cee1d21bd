"""Labels of every kind give the same plane, and what does not fit is refused in one line."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from wsiseg.errors import UsageError
from wsiseg.geometry import Size
from wsiseg.runs import Runs
from wsiseg_train.labels import (
    crosses_itself,
    instance_targets,
    read_share,
    share_of_mask,
    share_of_polygons,
    share_of_runs,
)

SIZE = Size(90, 70)


@pytest.fixture
def mask():
    plane = np.zeros((90, 70), np.uint8)
    cv2.circle(plane, (30, 40), 20, 1, -1)
    plane[80:, 60:] = 1
    return plane


def block_mean(mask, scale):
    h, w = -(-mask.shape[0] // scale), -(-mask.shape[1] // scale)
    return np.array(
        [
            [mask[y * scale : (y + 1) * scale, x * scale : (x + 1) * scale].mean() for x in range(w)]
            for y in range(h)
        ]
    )


@pytest.mark.parametrize("scale", [1, 2, 4, 7])
def test_a_share_is_the_mean_of_the_pixels_below(mask, scale):
    found = share_of_mask(mask, scale)
    whole = np.s_[: 90 // scale, : 70 // scale]
    assert np.abs(found[whole] - 255 * block_mean(mask, scale)[whole]).max() <= 1
    assert found.shape == (-(-90 // scale), -(-70 // scale))


@pytest.mark.parametrize("scale", [1, 3, 4])
def test_runs_and_a_mask_image_give_the_same_share(mask, scale):
    assert np.array_equal(share_of_runs(Runs.from_mask(mask), scale, strip=5), share_of_mask(mask, scale))


def test_polygons_give_the_share_of_their_area():
    square = [[np.array([[10.0, 20.0], [30.0, 20.0], [30.0, 50.0], [10.0, 50.0]])]]
    share = share_of_polygons(square, SIZE, 4)
    assert share.astype(float).sum() / 255 * 16 == pytest.approx(600, rel=0.03)
    assert share[8, 5] == 255
    assert share[0, 0] == 0


def test_a_hole_of_a_polygon_is_empty():
    ring = [
        np.array([[0.0, 0], [60, 0], [60, 60], [0, 60]]),
        np.array([[20.0, 20], [40, 20], [40, 40], [20, 40]]),
    ]
    share = share_of_polygons([ring], SIZE, 2)
    assert share[15, 15] == 0
    assert share[5, 5] == 255


@pytest.mark.parametrize("kind", ["csv", "png", "geojson"])
def test_every_kind_is_read_by_its_file(tmp_path, kind):
    plane = np.zeros((90, 70), np.uint8)
    plane[20:60, 10:50] = 1
    path = tmp_path / f"labels.{kind}"
    if kind == "csv":
        path.write_text(f"id,encoding\nother,\nslide,{Runs.from_mask(plane).to_rle()}\n")
    elif kind == "png":
        cv2.imwrite(str(path), plane * 255)
    else:
        ring = [
            [5, 10],
            [25, 10],
            [25, 30],
            [5, 30],
            [5, 10],
        ]  # half the slide's coordinates: label_scale doubles them
        path.write_text(
            json.dumps(
                {
                    "type": "FeatureCollection",
                    "features": [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}],
                }
            )
        )
    share = read_share(path, SIZE, 2, "slide", (2.0, 2.0) if kind == "geojson" else (1.0, 1.0))
    # a polygon's edge is drawn half covered at a quarter of a network pixel
    assert np.abs(share.astype(int) - share_of_mask(plane, 2)).max() <= (255 / 4 if kind == "geojson" else 1)


def test_what_does_not_fit_is_refused(tmp_path):
    def csv(text):
        (tmp_path / "x.csv").write_text("id,predicted\nslide," + text + "\n")
        return tmp_path / "x.csv"

    with pytest.raises(UsageError, match="beyond the slide"):
        read_share(csv("6290 20"), SIZE, 1, "slide")
    with pytest.raises(UsageError, match="overlapping"):
        read_share(csv("1 10 5 10"), SIZE, 1, "slide")
    with pytest.raises(UsageError, match="no row for slide 'b'"):
        read_share(csv("1 10"), SIZE, 1, "b")
    cv2.imwrite(str(tmp_path / "m.png"), np.zeros((9, 7), np.uint8))
    with pytest.raises(UsageError, match="7 x 9, the slide is 70 x 90"):
        read_share(tmp_path / "m.png", SIZE, 1, "slide")
    bow = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]},
    }
    (tmp_path / "p.geojson").write_text(json.dumps(bow))
    with pytest.raises(UsageError, match="feature 0 crosses itself"):
        read_share(tmp_path / "p.geojson", SIZE, 1, "slide")
    assert read_share(tmp_path / "p.geojson", SIZE, 1, "slide", mend=True).any()
    with pytest.raises(UsageError, match="must be one of"):
        (tmp_path / "x.txt").write_text("")
        read_share(tmp_path / "x.txt", SIZE, 1, "slide")


def test_a_star_crosses_itself_and_a_spiral_does_not():
    angle = np.arange(5) * 4 * np.pi / 5
    assert crosses_itself(np.stack([np.cos(angle), np.sin(angle)], 1))
    assert not crosses_itself(
        np.array([[0.0, 0], [10, 0], [10, 10], [2, 10], [2, 5], [5, 5], [5, 7], [7, 7], [7, 2], [0, 2]])
    )


def test_cores_of_touching_objects_do_not_touch():
    labels = np.zeros((40, 60), np.uint16)
    labels[5:35, 5:30], labels[5:35, 30:55], labels[37, 3] = 1, 2, 3
    objects, cores = instance_targets(labels)
    assert np.array_equal(objects > 0, labels > 0)
    count, _ = cv2.connectedComponents(np.asarray(cores > 0, np.uint8))
    assert count - 1 == 3
    assert not (cores > 0)[:, 28:32].any()
