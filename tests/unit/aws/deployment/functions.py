"""Functions of both kinds."""

from serving.aws.deployment.lambda_description import FunctionRequest
from serving.aws.deployment.lambda_package import build_package
from serving.aws.deployment.policies import Place

PLACE = Place("aws", "us-east-1", "123456789012")
LAYER = "arn:aws:lambda:us-east-1:753240598075:layer:LambdaAdapterLayerX86:26"
MODEL = "us.amazon.nova-micro-v1:0"
BEDROCK = FunctionRequest("ask", PLACE, LAYER, bedrock_model=MODEL)
SAGEMAKER = FunctionRequest("ask", PLACE, LAYER, endpoint="chat", component="chat-b")
PACKAGE = build_package()
