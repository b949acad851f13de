"""Lets a failing assertion of a contract show its values, as one in a test module does."""

import pytest

pytest.register_assert_rewrite(
    "contract.bus_contract", "contract.clock_contract", "contract.launcher_contract", "contract.store_contract"
)
