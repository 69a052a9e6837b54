from serving.errors import EngineDead


async def test_the_document_has_our_routes_and_those_of_the_engine_that_can_be_reached(client):
    document = (await client.get("/openapi.json")).json()
    assert {"/ping", "/invocations", "/v1/chat/completions", "/adapters"} <= document["paths"].keys()
    assert "/sleep" not in document["paths"]


async def test_an_invocation_is_any_of_the_three_forms(client):
    document = (await client.get("/openapi.json")).json()
    schema = document["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    forms = [form["$ref"].rsplit("/", 1)[1] for form in schema["anyOf"]]
    assert forms == ["ChatCompletionRequest", "TextGenerationRequest"]  # the scripted engine knows no completions
    assert {*forms, "Parameters"} <= document["components"]["schemas"].keys()


async def test_before_the_engine_is_up_the_document_has_our_routes(client, engine, monkeypatch):
    def not_started():
        raise EngineDead("the engine has not been started")

    monkeypatch.setattr(engine, "openapi", not_started)
    document = (await client.get("/openapi.json")).json()
    assert "/invocations" in document["paths"]
    assert "/v1/chat/completions" not in document["paths"]
