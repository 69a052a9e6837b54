"""The function's process: reads what it is to ask from its environment, and serves until Lambda ends it."""

import os

from serving.aws.lambda_function.models import Bedrock, Endpoint
from serving.aws.lambda_function.server import FunctionServer

_MARGIN_S = 5.0
"""Before Lambda's own end, so that a stream can still say why it stops."""


def main() -> None:
    """The variables are those that `deployment/lambda_description.py` sets; Lambda sets AWS_REGION."""
    environ = os.environ
    timeout_s = float(environ["TOKENPORT_TIMEOUT_S"]) - _MARGIN_S
    region = environ["AWS_REGION"]
    if "TOKENPORT_BEDROCK_MODEL" in environ:
        ask = Bedrock(environ["TOKENPORT_BEDROCK_MODEL"], region=region, timeout_s=timeout_s).ask
    else:
        endpoint, component = environ["TOKENPORT_ENDPOINT"], environ.get("TOKENPORT_COMPONENT")
        ask = Endpoint(endpoint, component, region=region, timeout_s=timeout_s).ask
    FunctionServer(ask, int(environ["AWS_LWA_PORT"])).serve_forever()


if __name__ == "__main__":
    main()
