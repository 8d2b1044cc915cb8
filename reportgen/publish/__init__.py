"""Publishes a built report to visdom or TensorBoard.

Publishing again adds only what is new.
"""

from __future__ import annotations

from pathlib import Path

from reportgen.publish.published import Published

__all__ = ["Published", "publish_to_tensorboard", "publish_to_visdom"]


def publish_to_visdom(report_dir: Path, url: str, env: str | None) -> Published:
    """Send the report in `report_dir` to the visdom server at `url`, and save the environment.

    Args:
        report_dir: a folder that `reportgen build` wrote.
        url: `http://host:port`, with a base path or `user:password@` where the server has them.
        env: the environment's name; None for one made of the report's title.

    Raises:
        PublishError: the report cannot be read, the visdom package is not installed, or the
            server cannot be reached or rejects the request.
    """
    from reportgen.publish.contents import read_contents
    from reportgen.publish.visdom.windows import publish

    return publish(read_contents(report_dir), url, env)


def publish_to_tensorboard(report_dir: Path, folder: Path) -> Published:
    """Write the report in `report_dir` as event files below `folder`, a log directory.

    Raises:
        PublishError: the report cannot be read, or `folder` cannot be written to.
    """
    from reportgen.publish.contents import read_contents
    from reportgen.publish.tensorboard import publish

    return publish(read_contents(report_dir), folder)
